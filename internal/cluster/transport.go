package cluster

import (
	"bytes"
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
	"viver.lan/internal/identity"
)

// Bounds on the connections that others open: each is a goroutine and an open file
// of memberlist's for 3 s.
const (
	maxStreams     = 128
	maxStreamsEach = 8           // of one address
	streamTime     = time.Second // that all of them may take when many want to
)

// transport stands between memberlist and its sockets and passes on what our own
// members may have sent, within bounds: memberlist runs in the block daemon, whose
// memory is the root disk's.
type transport struct {
	*memberlist.NetTransport
	network netip.Prefix // invalid: everybody
	budget  *signatureBudget
	pending pendingPings
	log     *slog.Logger

	packets chan *memberlist.Packet
	streams chan net.Conn
	closing chan struct{} // nobody takes what arrives any more
	closed  chan struct{} // nothing arrives any more
	loops   sync.WaitGroup

	mu   sync.Mutex
	open []*stream // oldest first
}

// openTransport binds the gossip port; 0 means any that is free for TCP and UDP.
func openTransport(bind netip.Addr, port uint16, network netip.Prefix, budget *signatureBudget, log *slog.Logger) (*transport, error) {
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
	t := &transport{
		NetTransport: inner, network: network, budget: budget, log: log,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		closing: make(chan struct{}), closed: make(chan struct{}),
	}
	t.loops.Go(t.filterPackets)
	t.loops.Go(t.filterStreams)
	return t, nil
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport. Only who was pinged
// may answer.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	t.pending.sent(b, a.Addr, time.Now())
	return t.NetTransport.WriteToAddress(b, a)
}

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport. Who answers may be a
// stranger as well.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	conn, err := t.NetTransport.DialAddressTimeout(a, timeout)
	if err != nil {
		return nil, err
	}
	return newStream(conn, "", t.source(conn.RemoteAddr()).Addr(), t.budget, t.log, func(*stream) {}), nil
}

// Shutdown implements memberlist.Transport. What still arrives is thrown away,
// or those who bring it would never end.
func (t *transport) Shutdown() error {
	close(t.closing)
	err := t.NetTransport.Shutdown()
	close(t.closed)
	t.loops.Wait()
	return err
}

// resetIncarnation has memberlist number what it says of this machine from the
// beginning. Anybody can suspect the machine under the greatest incarnation number
// there is, below which memberlist drops what the machine itself wants to say; only
// the refutation of a suspicion may overflow to 0.
func (t *transport) resetIncarnation(self identity.ID) {
	suspect := struct {
		Incarnation uint32
		Node, From  string
	}{math.MaxUint32, self.String(), self.String()}
	packet := append([]byte(labelHeader), msgSuspect)
	var body []byte
	if err := codec.NewEncoderBytes(&body, new(codec.MsgpackHandle)).Encode(suspect); err != nil {
		return // a struct of text and a number has an encoding
	}
	p := &memberlist.Packet{Buf: append(packet, body...), From: &net.UDPAddr{}, Timestamp: time.Now()}
	select {
	case t.packets <- p:
	case <-t.closing:
	}
}

func (t *transport) filterPackets() {
	filter := newPacketFilter(t.budget, &t.pending)
	for {
		select {
		case p := <-t.NetTransport.PacketCh():
			err := contain.Call(t.log, "a gossip packet", func() error { return filter.check(p.Buf, t.source(p.From), time.Now()) })
			if err != nil {
				t.log.Debug("gossip packet dropped", "addr", p.From, "error", err)
				continue
			}
			// It comes in a buffer of 64 KiB and may wait in a queue.
			p.Buf = bytes.Clone(p.Buf)
			select {
			case t.packets <- p:
			case <-t.closing:
			}
		case <-t.closed:
			return
		}
	}
}

func (t *transport) filterStreams() {
	for {
		select {
		case conn := <-t.NetTransport.StreamCh():
			from := t.source(conn.RemoteAddr())
			if !from.IsValid() {
				_ = conn.Close()
				continue
			}
			s := newStream(conn, labelHeader, from.Addr(), t.budget, t.log, t.remove)
			t.add(s)
			select {
			case t.streams <- s:
			case <-t.closing:
				_ = s.Close()
			}
		case <-t.closed:
			return
		}
	}
}

// source returns the address and port of a sender, and no valid one for a sender
// that is outside our network.
func (t *transport) source(a net.Addr) netip.AddrPort {
	p, err := netip.ParseAddrPort(a.String())
	if addr := p.Addr().Unmap(); err == nil && (!t.network.IsValid() || t.network.Contains(addr)) {
		return netip.AddrPortFrom(addr, p.Port())
	}
	return netip.AddrPort{}
}

// add counts a connection, and closes one when too many are open, of one address or
// in all.
func (t *transport) add(s *stream) {
	t.mu.Lock()
	t.open = append(t.open, s)
	victim := t.excess(s)
	t.mu.Unlock()
	if victim != nil {
		_ = victim.Close() // removes it
	}
}

// excess returns the connection that is too much with the newest, or nil. The
// oldest makes room, because an exchange takes milliseconds: somebody holds that
// one. But in a room that is switched on together many are young and honest; then
// the newest has to come again, or none would ever be done. It runs with t.mu
// held.
func (t *transport) excess(newest *stream) *stream {
	var own []*stream
	for _, o := range t.open {
		if o.from == newest.from {
			own = append(own, o)
		}
	}
	switch {
	case len(own) > maxStreamsEach:
		return own[0]
	case len(t.open) <= maxStreams:
		return nil
	case newest.opened.Sub(t.open[0].opened) > streamTime:
		return t.open[0]
	}
	return newest
}

func (t *transport) remove(s *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(t.open, s); i >= 0 {
		t.open = slices.Delete(t.open, i, i+1)
	}
}
