package swarm

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"viver.lan/internal/swarm/wire"
)

// idleSwarm is a swarm whose peers are what a test says.
func idleSwarm(t *testing.T) *Swarm {
	t.Helper()
	info, _ := newImage(t, 4)
	return start(t, info, "n", nil).Swarm
}

// someone is a kind of peer that a swarm has.
type someone struct {
	host     string
	n        int
	worth    worth
	outgoing bool
}

// have gives s the peers, whose connections are closed when they have to leave.
func have(t *testing.T, s *Swarm, all []someone, now time.Duration) {
	t.Helper()
	for _, w := range all {
		for range w.n {
			tcp, err := net.Dial("tcp", s.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { tcp.Close() })
			s.nextKey++
			p := &peer{s: s, conn: tcp.(*net.TCPConn), key: s.nextKey, addr: netip.AddrPortFrom(netip.MustParseAddr(w.host), 1), outgoing: w.outgoing}
			s.table.AddPeer(p.key)
			p.since = now - time.Minute
			switch w.worth {
			case new_:
				p.since = now
			case taking:
				p.lastSent = now
			case giving:
				s.table.SetChoked(p.key, false)
				s.table.PeerHas(p.key, 0, true)
				s.table.Want(0, true)
				if _, ok := s.table.Next(p.key, now); !ok {
					t.Fatal("a peer that has a piece is not asked")
				}
				s.table.Done(p.key, 0, now)
				p.lastData.Store(int64(now))
			case origin:
				p.contact, p.proved = &contact{origin: true}, true
			}
			s.peers[p.key] = p
		}
	}
}

func hosts(n, each int, w worth) (out []someone) {
	for k := range n {
		out = append(out, someone{host: fmt.Sprintf("10.0.%d.1", k), n: each, worth: w})
	}
	return out
}

func TestMakePlace(t *testing.T) {
	const me = "10.9.9.9"
	for name, c := range map[string]struct {
		there []someone
		dials *contact // nil: it called
		in    bool
		gone  worth // of whom had to leave, -1: nobody
	}{
		"there is room":                           {[]someone{{me, 3, taking, false}}, nil, true, -1},
		"its address has enough, one is idle":     {[]someone{{me, maxPerHost - 1, taking, false}, {me, 1, idle, false}}, nil, true, idle},
		"its address has enough, all take":        {[]someone{{me, maxPerHost, taking, false}}, nil, true, taking},
		"its address has enough, all give":        {[]someone{{me, maxPerHost, giving, false}}, nil, false, -1},
		"full of new ones of few addresses":       {hosts(10, maxIncoming/10, new_), nil, true, new_},
		"full of takers of few addresses":         {hosts(10, maxIncoming/10, taking), nil, true, taking},
		"full, each of an address, one idle":      {append(hosts(maxIncoming-1, 1, taking), someone{"10.1.0.1", 1, idle, false}), nil, true, idle},
		"full, each of an address, all take":      {hosts(maxIncoming, 1, taking), nil, false, -1},
		"full, each of an address, all give":      {hosts(maxIncoming, 1, giving), nil, false, -1},
		"full of callers, this node calls":        {hosts(maxIncoming, 1, taking), &contact{}, true, -1},
		"full of all, this node calls the first":  {append(hosts(maxIncoming, 1, taking), someone{"10.1.0.1", maxPeers - maxIncoming, taking, true}), &contact{origin: true}, true, taking},
		"full, the first node is the oldest idle": {append(hosts(maxIncoming-1, 1, taking), someone{"10.1.0.1", 1, origin, false}), nil, false, -1},
	} {
		t.Run(name, func(t *testing.T) {
			s := idleSwarm(t)
			s.mu.Lock()
			defer s.mu.Unlock()
			now := s.now() + 2*time.Minute
			have(t, s, c.there, now)
			err := s.makePlace(&peer{s: s, addr: netip.AddrPortFrom(netip.MustParseAddr(me), 1)}, c.dials, now)
			if (err == nil) != c.in {
				t.Errorf("%v", err)
			}
			gone := worth(-1)
			for k, p := range s.peers {
				if p.closing {
					p.closing = false
					gone = s.worthOf(p, now)
				}
				delete(s.peers, k)
			}
			if gone != c.gone {
				t.Errorf("one worth %d left, want %d", gone, c.gone)
			}
		})
	}
}

// One address opens connections without an end, which say nothing or stop after
// the handshake; a node at another address is served meanwhile.
func TestOneAddressKeepsNobodyOut(t *testing.T) {
	info, data := newImage(t, 20)
	n := start(t, info, "seed", data)
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	var conns []net.Conn
	go func() {
		defer close(ended)
		for k := 0; ctx.Err() == nil; k++ {
			c, err := from.DialContext(ctx, "tcp", n.Addr().String())
			if err != nil {
				continue
			}
			conns = append(conns, c)
			if k%2 == 0 {
				hs := wire.Handshake{Infohash: info.Infohash, Fast: true}
				copy(hs.PeerID[:], fmt.Sprintf("-XX0000-%012d", k))
				c.Write(hs.Append(nil))
			}
			time.Sleep(time.Millisecond)
		}
	}()
	defer func() {
		cancel()
		<-ended
		for _, c := range conns {
			c.Close()
		}
	}()
	eventually(t, "the address has its places", func() bool { p, _ := n.Status(); return len(p) == maxPerHost })
	other := start(t, info, "n", nil)
	other.AddPeer(n.Addr(), false)
	eventually(t, "the other one is complete", hasAll(other))
	if p, _ := n.Status(); len(p) > maxPerHost+1 {
		t.Errorf("%d peers", len(p))
	}
}

// Addresses that peers tell of are dialled on the own network only, above the
// ports of services, and few of one address.
func TestHearsay(t *testing.T) {
	s := idleSwarm(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subnets = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	for addr, want := range map[string]bool{
		"10.1.0.5:6881": true, "10.1.0.5:1023": false, "10.1.0.5:22": false, "10.2.0.5:6881": false, "8.8.8.8:6881": false,
	} {
		if got := s.hear(netip.MustParseAddrPort(addr)) != nil; got != want {
			t.Errorf("%s is remembered: %v", addr, got)
		}
	}
	for port := range 100 {
		s.hear(netip.AddrPortFrom(netip.MustParseAddr("10.1.7.7"), uint16(2000+port)))
	}
	if len(s.contacts) != 1+portsPerHost {
		t.Errorf("%d addresses are remembered", len(s.contacts))
	}
	for k := range 2 * maxContacts {
		s.hear(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(k >> 8), byte(k)}), 6881))
	}
	if len(s.contacts) != maxContacts {
		t.Errorf("%d addresses are remembered", len(s.contacts))
	}
	for _, c := range s.contacts {
		c.next = time.Hour
	}
	known := netip.MustParseAddrPort("10.1.0.5:6881")
	s.contacts[known].fails = 1
	if s.hear(netip.MustParseAddrPort("10.1.99.99:6881")) == nil || s.contacts[known] != nil {
		t.Error("an address where nobody answered keeps another out")
	}
}

// Work that a connection causes is paid for by that connection.
func TestWork(t *testing.T) {
	const pieces = 1000
	for name, c := range map[string]struct {
		m         wire.Message
		perSecond int
		held      bool
	}{
		"pieces of a fast link":        {wire.Message{Type: wire.Have}, 1500, false},
		"requests of a fast link":      {wire.Message{Type: wire.Request}, 50_000, false},
		"a budget that changes":        {wire.Message{Type: wire.Extended, ExtendedID: wire.IDHandshake}, 2, false},
		"a hello 200 times a second":   {wire.Message{Type: wire.Extended, ExtendedID: wire.IDHandshake}, 200, true},
		"addresses 200 times a second": {wire.Message{Type: wire.Extended, ExtendedID: wire.IDPex}, 200, true},
		"all, 200 times a second":      {wire.Message{Type: wire.HaveAll}, 200, true},
		"choke 500 times a second":     {wire.Message{Type: wire.Choke}, 500, true},
		"have without an end":          {wire.Message{Type: wire.Have}, 20_000, true},
	} {
		w, now, held := newWork(pieces), time.Duration(0), false
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // nothing is waited for here
		for range 10 * c.perSecond {
			now += time.Second / time.Duration(c.perSecond)
			held = w.done(ctx, costOf(c.m, pieces), now) != nil || held
		}
		if held != c.held {
			t.Errorf("%s: held back %v", name, held)
		}
	}
}

// The lobby always has room for one more, but of one address only for a few,
// and nobody comes in without an end.
func TestLobby(t *testing.T) {
	var l lobby
	enter := func(host byte, now time.Duration) bool {
		c, d := net.Pipe()
		t.Cleanup(func() { c.Close(); d.Close() })
		_, ok := l.enter(c, netip.AddrFrom4([4]byte{10, 0, 0, host}), now)
		return ok
	}
	in := 0
	for range 3 * arrivals {
		if enter(1, 0) {
			in++
		}
	}
	if in != arrivals || len(l.opening) != maxOpeningHost {
		t.Errorf("%d entered, %d are in", in, len(l.opening))
	}
	if !enter(1, time.Second) {
		t.Error("an address that connected too often is never let in again")
	}
	for host := range byte(200) {
		if !enter(10+host, 0) {
			t.Errorf("host %d is turned away", host)
		}
	}
	if len(l.opening) != maxOpening {
		t.Errorf("%d are in", len(l.opening))
	}
}

// An address that took more than an image, and gives nothing, shares its turn
// with all that do the same; who gives something, or takes what it needs, does
// not.
func TestTakersAreKnown(t *testing.T) {
	s := idleSwarm(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	have(t, s, []someone{{"10.0.0.1", 1, new_, false}, {"10.0.0.2", 1, giving, false}, {"10.0.0.3", 1, new_, false}}, s.now()+time.Second)
	for _, p := range s.peers {
		last := p.addr.Addr().As4()[3]
		times := map[byte]int{1: 3, 2: 3, 3: 1}[last]
		for range times {
			s.fed(p, int(s.cfg.Info.Size))
		}
		if want := last == 1; p.lane.Taker != want {
			t.Errorf("10.0.0.%d: %+v", last, p.lane)
		}
	}
	clear(s.peers)
}

// Bytes that nobody asked for are work, too: a message with one byte takes the lock
// as often as one with a whole block.
func TestUselessBlocksAreWork(t *testing.T) {
	s := idleSwarm(t)
	client, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var flood []byte
	for range 3 {
		flood = append(wire.AppendPieceHeader(flood, wire.Block{Piece: 1, Length: 1}), 'x')
	}
	r := wire.NewReader(bytes.NewReader(flood), wire.Limits{Pieces: 4, Block: wire.BlockSize})
	p := &peer{s: s, conn: client.(*net.TCPConn)}
	for range 3 {
		m, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.readBlock(r, m.Block); err != nil {
			t.Fatal(err)
		}
	}
	if owed := p.owed.Load(); owed != 3 {
		t.Errorf("three of them cost %d", owed)
	}
	if c := costOf(wire.Message{Type: wire.Piece}, 4); c != 0 {
		t.Errorf("a block as such costs %d, and those that were asked for come without a bound", c)
	}
}
