package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/memberlist"

	"viver.lan/internal/contain"
)

// What a stranger may cost us. memberlist reads whatever arrives, and believes
// the lengths that a message claims: 30 bytes make it set 100 MB aside, a
// compressed packet unfolds to 40 MB, a connection is a goroutine and an open
// file for 3 s. It runs in the block daemon, whose memory is the root disk's.
const (
	maxPacket      = 1472        // bytes; an Ethernet frame's, memberlist's own are smaller
	maxErrands     = 200         // pings for somebody else, a second: each is a goroutine for 0.5 s
	maxPackets     = 200         // of one address, a second; members send each other some 20
	maxSources     = 4096        // addresses that are counted at a time
	maxStreams     = 128         // connections that others opened
	maxStreamsEach = 8           // of one address
	streamTime     = time.Second // that all of them may take when many want to
	maxState       = 8 << 20     // bytes that one connection brings
)

var errGate = errors.New("not of our gossip")

// gate stands between memberlist and its sockets and passes on what our own
// members may have sent.
type gate struct {
	*memberlist.NetTransport
	network netip.Prefix // invalid: everybody
	checks  *checks
	asked   questions
	log     *slog.Logger

	packets chan *memberlist.Packet
	streams chan net.Conn
	closing chan struct{} // nobody takes what arrives any more
	closed  chan struct{} // nothing arrives any more
	pumps   sync.WaitGroup

	mu   sync.Mutex
	open []*stream // oldest first
}

// openGate binds the gossip port; 0 means any that is free for TCP and UDP.
func openGate(bind netip.Addr, port uint16, network netip.Prefix, checks *checks, log *slog.Logger) (*gate, error) {
	cfg := &memberlist.NetTransportConfig{BindAddrs: []string{bind.String()}, BindPort: int(port), Logger: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	inner, err := memberlist.NewNetTransport(cfg)
	for range 10 { // the port that is free for one may be taken for the other
		if err == nil || port != 0 || !strings.Contains(err.Error(), "address already in use") {
			break
		}
		inner, err = memberlist.NewNetTransport(cfg)
	}
	if err != nil {
		return nil, err
	}
	g := &gate{
		NetTransport: inner, network: network, checks: checks, log: log,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		closing: make(chan struct{}), closed: make(chan struct{}),
	}
	g.pumps.Go(g.passPackets)
	g.pumps.Go(g.passStreams)
	return g, nil
}

// PacketCh implements memberlist.Transport.
func (g *gate) PacketCh() <-chan *memberlist.Packet { return g.packets }

// StreamCh implements memberlist.Transport.
func (g *gate) StreamCh() <-chan net.Conn { return g.streams }

// WriteTo implements memberlist.Transport.
func (g *gate) WriteTo(b []byte, addr string) (time.Time, error) {
	return g.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport. Only who is asked may
// answer.
func (g *gate) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	g.asked.ask(b, a.Addr, time.Now())
	return g.NetTransport.WriteToAddress(b, a)
}

// DialTimeout implements memberlist.Transport.
func (g *gate) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return g.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport. Who is called
// may be a stranger as well.
func (g *gate) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	conn, err := g.NetTransport.DialAddressTimeout(a, timeout)
	if err != nil {
		return nil, err
	}
	s := newStream(conn, "", g.log, func(*stream) {})
	s.from, s.checks = g.source(conn.RemoteAddr()).Addr(), g.checks
	return s, nil
}

// Shutdown implements memberlist.Transport. What still arrives is thrown away,
// or those who bring it would never end.
func (g *gate) Shutdown() error {
	close(g.closing)
	err := g.NetTransport.Shutdown()
	close(g.closed)
	g.pumps.Wait()
	return err
}

// beginAnew has memberlist count what it says of this machine from the beginning.
// Anybody can accuse the machine under the greatest number there is, below which
// memberlist drops what the machine itself wants to say; the answer to an
// accusation alone may overflow to 0.
func (g *gate) beginAnew(self NodeID) {
	accusation := struct {
		Incarnation uint32
		Node, From  string
	}{math.MaxUint32, string(self), string(self)}
	packet := append([]byte(labelHeader), msgSuspect)
	var body []byte
	if err := codec.NewEncoderBytes(&body, new(codec.MsgpackHandle)).Encode(accusation); err != nil {
		return // a struct of text and a number has an encoding
	}
	p := &memberlist.Packet{Buf: append(packet, body...), From: &net.UDPAddr{}, Timestamp: time.Now()}
	select {
	case g.packets <- p:
	case <-g.closing:
	}
}

func (g *gate) passPackets() {
	judge := packetJudge{errands: rate{limit: maxErrands, period: time.Second}, checks: g.checks, asked: &g.asked}
	for {
		select {
		case p := <-g.NetTransport.PacketCh():
			err := contain.Call(g.log, "a gossip packet", func() error { return judge.judge(p.Buf, g.source(p.From), time.Now()) })
			if err != nil {
				g.log.Debug("gossip packet dropped", "addr", p.From, "err", err)
				continue
			}
			// It comes in a buffer of 64 KiB and may wait in a queue.
			p.Buf = bytes.Clone(p.Buf)
			select {
			case g.packets <- p:
			case <-g.closing:
			}
		case <-g.closed:
			return
		}
	}
}

func (g *gate) passStreams() {
	for {
		select {
		case conn := <-g.NetTransport.StreamCh():
			from := g.source(conn.RemoteAddr())
			if !from.IsValid() {
				_ = conn.Close()
				continue
			}
			s := newStream(conn, labelHeader, g.log, g.leave)
			s.from, s.opened, s.checks = from.Addr(), time.Now(), g.checks
			g.enter(s)
			select {
			case g.streams <- s:
			case <-g.closing:
				_ = s.Close()
			}
		case <-g.closed:
			return
		}
	}
}

// source returns the address and port of a sender, and no valid one for a sender
// that is outside our network.
func (g *gate) source(a net.Addr) netip.AddrPort {
	p, err := netip.ParseAddrPort(a.String())
	if addr := p.Addr().Unmap(); err == nil && (!g.network.IsValid() || g.network.Contains(addr)) {
		return netip.AddrPortFrom(addr, p.Port())
	}
	return netip.AddrPort{}
}

// enter counts a connection, and closes one when too many are open, of one
// address or in all.
func (g *gate) enter(s *stream) {
	g.mu.Lock()
	g.open = append(g.open, s)
	victim := g.surplus(s)
	g.mu.Unlock()
	if victim != nil {
		_ = victim.Close() // leaves
	}
}

// surplus returns the connection that is too much with the newest, or nil. The
// oldest makes room, because an exchange takes milliseconds: somebody holds that
// one. But in a room that is switched on together many are young and honest; then
// the newest has to come again, or none would ever be done. It runs with g.mu
// held.
func (g *gate) surplus(newest *stream) *stream {
	var own []*stream
	for _, o := range g.open {
		if o.from == newest.from {
			own = append(own, o)
		}
	}
	switch {
	case len(own) > maxStreamsEach:
		return own[0]
	case len(g.open) <= maxStreams:
		return nil
	case newest.opened.Sub(g.open[0].opened) > streamTime:
		return g.open[0]
	}
	return newest
}

func (g *gate) leave(s *stream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.open, s); i >= 0 {
		g.open = slices.Delete(g.open, i, i+1)
	}
}

// Kinds of memberlist's messages.
const (
	msgPing         = 0
	msgIndirectPing = 1
	msgAck          = 2
	msgSuspect      = 3
	msgAlive        = 4
	msgDead         = 5
	msgPushPull     = 6
	msgCompound     = 7
	msgUser         = 8
	msgNack         = 11
	msgCRC          = 12
	msgError        = 13
	msgLabel        = 244
)

// labelHeader is in front of all that our members send first.
var labelHeader = string([]byte{msgLabel, byte(len(label))}) + label

// packetJudge decides which packets are passed on. It is for one goroutine.
type packetJudge struct {
	errands rate
	checks  *checks
	asked   *questions
	second  time.Time // the present one
	sent    map[netip.Addr]int
}

func (j *packetJudge) judge(p []byte, sender netip.AddrPort, now time.Time) error {
	if !sender.IsValid() {
		return errors.New("not of our network")
	}
	messages, err := unpack(p)
	if err != nil {
		return err
	}
	from := sender.Addr()
	if now.Sub(j.second) >= time.Second {
		j.second, j.sent = now, make(map[netip.Addr]int)
	}
	if _, counted := j.sent[from]; counted || len(j.sent) < maxSources {
		j.sent[from]++
	}
	if j.sent[from] > maxPackets {
		return fmt.Errorf("more than %d a second", maxPackets)
	}
	for _, m := range messages {
		if err := j.judgeMessage(m, sender, now); err != nil {
			return err
		}
	}
	return nil
}

func (j *packetJudge) judgeMessage(m []byte, from netip.AddrPort, now time.Time) error {
	switch m[0] {
	case msgIndirectPing: // an errand: a ping that we are asked to send to somebody else
		if !j.errands.allow(now) {
			return fmt.Errorf("more than %d errands a second", maxErrands)
		}
	case msgAck, msgNack:
		if !j.asked.answers(m, from) {
			return errors.New("it answers what it was not asked")
		}
	case msgAlive:
		var alive struct {
			Node string
			Meta []byte
		}
		if err := codec.NewDecoderBytes(m[1:], new(codec.MsgpackHandle)).Decode(&alive); err != nil {
			return fmt.Errorf("%w: %w", errGate, err)
		}
		if !j.checks.allow(from.Addr(), alive.Node, alive.Meta, now) {
			return errTooMany
		}
	}
	return nil
}

// unpack takes a packet apart as memberlist will, into messages with their kinds.
func unpack(p []byte) (messages [][]byte, err error) {
	if len(p) > maxPacket {
		return nil, fmt.Errorf("%w: %d bytes", errGate, len(p))
	}
	p, ok := bytes.CutPrefix(p, []byte(labelHeader))
	if !ok {
		return nil, fmt.Errorf("%w: no label %q", errGate, label)
	}
	if len(p) >= 5 && p[0] == msgCRC {
		p = p[5:]
	}
	if len(p) < 2 || p[0] != msgCompound {
		return [][]byte{p}, inspectMessage(p)
	}
	n := 2 * int(p[1]) // bytes of lengths
	if len(p) < 2+n {
		return nil, fmt.Errorf("%w: truncated", errGate)
	}
	lengths, rest := p[2:2+n], p[2+n:]
	for ; len(lengths) > 0; lengths = lengths[2:] {
		size := int(binary.BigEndian.Uint16(lengths))
		if size > len(rest) {
			return nil, fmt.Errorf("%w: truncated", errGate)
		}
		if err := inspectMessage(rest[:size]); err != nil {
			return nil, err
		}
		messages, rest = append(messages, rest[:size]), rest[size:]
	}
	return messages, nil
}

// inspectMessage refuses what our members do not send in packets, above all
// what holds further messages.
func inspectMessage(p []byte) error {
	if len(p) == 0 {
		return fmt.Errorf("%w: empty", errGate)
	}
	switch p[0] {
	case msgPing, msgIndirectPing, msgAck, msgSuspect, msgAlive, msgDead, msgUser, msgNack:
		return nil
	}
	return fmt.Errorf("%w: kind %d", errGate, p[0])
}
