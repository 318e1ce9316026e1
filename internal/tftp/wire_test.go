package tftp

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

var (
	serverSide = netip.MustParseAddrPort("10.77.3.9:40000")
	clientSide = netip.MustParseAddrPort("10.77.0.5:2070")
)

// trouble is what a network does to packets of both directions.
type trouble struct {
	lost, twice, late float64 // shares of all packets
}

// delay is that of a packet; one that is late takes ten times as long.
const delay = time.Millisecond

// wire is a network of two ports.
type wire struct {
	trouble trouble
	mu      sync.Mutex // guards the rest
	rng     *rand.Rand
	sent    int // DATA packets
	packets int // of all kinds
}

// port is an end of a wire. It is used in a bubble (testing/synctest), where time is
// virtual.
type port struct {
	wire     *wire
	address  netip.AddrPort
	peer     *port
	in       chan letter
	mu       sync.Mutex // guards the rest
	deadline time.Time
	changed  chan struct{} // closed when the deadline changes
}

type letter struct {
	from netip.AddrPort
	text []byte
}

func newWire(trouble trouble, seed uint64) (w *wire, server, client *port) {
	w = &wire{trouble: trouble, rng: rand.New(rand.NewPCG(seed, 1))}
	server = &port{wire: w, address: serverSide, in: make(chan letter, 1000), changed: make(chan struct{})}
	client = &port{wire: w, address: clientSide, in: make(chan letter, 1000), changed: make(chan struct{})}
	server.peer, client.peer = client, server
	return w, server, client
}

// fate tells when copies of a packet arrive.
func (w *wire) fate(packet []byte) (arrive []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if binary.BigEndian.Uint16(packet) == opData {
		w.sent++
	}
	copies := 1
	if w.rng.Float64() < w.trouble.twice {
		copies = 2
	}
	for range copies {
		w.packets++
		switch takes := delay + time.Duration(w.packets); { // those of one moment arrive in order
		case w.rng.Float64() < w.trouble.lost:
		case w.rng.Float64() < w.trouble.late:
			arrive = append(arrive, 10*takes)
		default:
			arrive = append(arrive, takes)
		}
	}
	return arrive
}

func (p *port) WriteToUDPAddrPort(b []byte, _ netip.AddrPort) (int, error) {
	l := letter{p.address, bytes.Clone(b)}
	for _, d := range p.wire.fate(b) {
		time.AfterFunc(d, func() {
			select {
			case p.peer.in <- l:
			default: // a socket has no room for ever, too
			}
		})
	}
	return len(b), nil
}

func (p *port) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		p.mu.Lock()
		deadline, changed := p.deadline, p.changed
		p.mu.Unlock()
		select {
		case l := <-p.in:
			return copy(b, l.text), l.from, nil
		case <-changed:
		case <-time.After(time.Until(deadline)):
			return 0, netip.AddrPort{}, os.ErrDeadlineExceeded
		}
	}
}

func (p *port) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline = t
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

func (p *port) Close() error { return nil }

// habit is how a client answers a block that it does not expect.
type habit int

const (
	patient habit = iota // not at all; in silence it repeats its last ACK, as atftp does
	once                 // by one ACK for each gap, and for a copy of the last block
	always               // by an ACK for each such block, as edk2's does
)

// client receives a file as RFC 7440 says.
type client struct {
	Conn
	server netip.AddrPort
	habit  habit
	block  int
	window int
	got    bytes.Buffer
}

const clientTimeout = 4 * time.Second

func (c *client) ack(block int64) {
	c.send(opAck, uint16(block), "")
}

func (c *client) send(op, number uint16, rest string) {
	b := binary.BigEndian.AppendUint16(nil, op)
	b = binary.BigEndian.AppendUint16(b, number)
	_, _ = c.WriteToUDPAddrPort(append(b, rest...), c.server)
}

// wants tells whether a client answers a packet that it does not expect.
func (c *client) wants(number, last uint16, gap bool) bool {
	return c.habit == always || c.habit == once && (!gap || number == last)
}

// receive takes a file to its end, or until an ERROR or a long silence. It returns
// what it was told. After the end it goes on to answer for a while.
func (c *client) receive() string {
	var last, unanswered int64 // the last block in order; those since the last ACK
	gap, ended := false, false
	buf := make([]byte, maxPacket)
	wait := func() { _ = c.SetReadDeadline(time.Now().Add(clientTimeout)) }
	wait()
	for silent := 0; silent < 20; {
		n, _, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			if ended {
				return "all"
			}
			silent++
			c.ack(last)
			wait()
			continue
		}
		if c.habit == patient && !ended {
			wait() // whatever it was
		}
		number := binary.BigEndian.Uint16(buf[2:])
		switch op := binary.BigEndian.Uint16(buf); {
		case op == opError:
			return string(bytes.TrimSuffix(buf[header:n], []byte{0}))
		case op == opOptionAck:
			if last == 0 {
				c.ack(0)
			}
		case op != opData:
		case number == uint16(last+1) && !ended:
			last++
			unanswered++
			gap, silent = false, 0
			wait()
			c.got.Write(buf[header:n])
			ended = n-header < c.block
			if ended { // the server may not hear of that for long
				_ = c.SetReadDeadline(time.Now().Add(100 * time.Second))
			}
			if ended || unanswered == int64(c.window) {
				unanswered = 0
				c.ack(last)
			}
		case ended || c.wants(number, uint16(last), gap):
			gap = true
			unanswered = 0
			c.ack(last)
		}
	}
	return "silence"
}

// start lets the client receive; wait returns what it was told.
func (c *client) start() (wait func() string) {
	said := make(chan string, 1)
	go func() { said <- c.receive() }()
	return func() string { return <-said }
}

// ask returns the options of a client that wants these.
func ask(words ...string) (options []option) {
	for _, w := range words {
		name, value, _ := strings.Cut(w, " ")
		options = append(options, option{name, value})
	}
	return options
}
