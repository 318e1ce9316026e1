package exchange

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"viver.lan/internal/swarm/wire"
)

// someone is a kind of peer that a node has.
type someone struct {
	host     string
	n        int
	worth    worth
	outgoing bool
}

// have gives x the peers.
func have(t *testing.T, x *Exchange, all []someone) {
	t.Helper()
	for _, w := range all {
		for range w.n {
			p := &peer{x: x, key: newKey(x), Endpoint: Endpoint{Addr: netip.AddrPortFrom(netip.MustParseAddr(w.host), 1)}}
			if w.outgoing {
				p.Dialled = p.Addr
			}
			x.table.AddPeer(p.key)
			p.since = x.now - time.Minute
			switch w.worth {
			case fresh:
				p.since = x.now
			case taking:
				p.lastSent = x.now
			case giving:
				x.table.SetChoked(p.key, false)
				x.table.PeerHas(p.key, 0, true)
				x.table.Want(0, true)
				if _, ok := x.table.Next(p.key, x.now); !ok {
					t.Fatal("a peer that has a piece is not asked")
				}
				x.table.Done(p.key, 0, x.now)
				p.lastData = x.now
			case origin:
				p.contact, p.proved = &contact{origin: true}, true
			}
			x.peers, x.byKey[p.key] = append(x.peers, p), p
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
		"its address has enough, one is idle":     {[]someone{{me, MaxPerHost - 1, taking, false}, {me, 1, idle, false}}, nil, true, idle},
		"its address has enough, all take":        {[]someone{{me, MaxPerHost, taking, false}}, nil, true, taking},
		"its address has enough, all give":        {[]someone{{me, MaxPerHost, giving, false}}, nil, false, -1},
		"full of new ones of few addresses":       {hosts(10, maxIncoming/10, fresh), nil, true, fresh},
		"full of takers of few addresses":         {hosts(10, maxIncoming/10, taking), nil, true, taking},
		"full, each of an address, one idle":      {append(hosts(maxIncoming-1, 1, taking), someone{"10.1.0.1", 1, idle, false}), nil, true, idle},
		"full, each of an address, all take":      {hosts(maxIncoming, 1, taking), nil, false, -1},
		"full, each of an address, all give":      {hosts(maxIncoming, 1, giving), nil, false, -1},
		"full of callers, this node calls":        {hosts(maxIncoming, 1, taking), &contact{}, true, -1},
		"full of all, this node calls the first":  {append(hosts(maxIncoming, 1, taking), someone{"10.1.0.1", maxPeers - maxIncoming, taking, true}), &contact{origin: true}, true, taking},
		"full, the first node is the oldest idle": {append(hosts(maxIncoming-1, 1, taking), someone{"10.1.0.1", 1, origin, false}), nil, false, -1},
	} {
		t.Run(name, func(t *testing.T) {
			x := newExchange(t)
			x.SetTime(2 * time.Minute)
			have(t, x, c.there)
			p := &peer{x: x, Endpoint: Endpoint{Addr: netip.AddrPortFrom(netip.MustParseAddr(me), 1)}, contact: c.dials}
			if c.dials != nil {
				p.Dialled = p.Addr
			}
			if err := x.makePlace(p); (err == nil) != c.in {
				t.Errorf("%v", err)
			}
			gone := worth(-1)
			for _, p := range x.peers {
				if p.closing {
					gone = x.worthOf(p)
				}
			}
			if gone != c.gone {
				t.Errorf("one worth %d left, want %d", gone, c.gone)
			}
		})
	}
}

// A peer that gave something once does not keep its place by bytes that nobody asked
// for, nor does one that owes something pass for one that gives.
func TestUnaskedBytesCountForNothing(t *testing.T) {
	x := newExchange(t)
	x.SetTime(time.Second)
	k := join(t, x, "10.0.0.1:1", "")
	p := x.byKey[k]
	x.Want(0, 1, every)
	arrive(t, x, k, 0)
	x.Verified(Verdict{Piece: 0, Right: true, Held: true})
	if w := x.worthOf(p); w != giving {
		t.Fatalf("who gave a piece is worth %d", w)
	}
	junk := wire.Block{Piece: 3, Length: 1}
	send := func() {
		x.Progress(k, x.now)
		x.BlockArrived(k, junk, new([]byte), nil)
		x.Unasked(k, junk)
	}
	x.SetTime(time.Hour)
	if send(); x.worthOf(p) != idle {
		t.Errorf("an hour later it is worth %d", x.worthOf(p))
	}
	x.Want(1, 2, every)
	for end := x.now + stallLimit; x.now < end && !p.closing; x.SetTime(x.now + time.Second) {
		x.BlockArrived(k, junk, new([]byte), nil)
		x.Unasked(k, junk)
		x.Tick()
	}
	if len(owes(x, k)) == 0 || x.stateOf(p) != "stalled" {
		t.Errorf("it owes %v and is %s", owes(x, k), x.stateOf(p))
	}
}

// Addresses that peers tell of are dialled on the own network only, above the
// ports of services, and few of one address.
func TestHearsay(t *testing.T) {
	x := newExchange(t)
	x.cfg.Subnets = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	for addr, want := range map[string]bool{
		"10.1.0.5:6881": true, "10.1.0.5:1023": false, "10.1.0.5:22": false, "10.2.0.5:6881": false, "8.8.8.8:6881": false,
	} {
		if got := x.addHearsay(netip.MustParseAddrPort(addr)) != nil; got != want {
			t.Errorf("%s is remembered: %v", addr, got)
		}
	}
	for port := range 100 {
		x.addHearsay(netip.AddrPortFrom(netip.MustParseAddr("10.1.7.7"), uint16(2000+port)))
	}
	if len(x.contacts.all) != 1+portsPerHost {
		t.Errorf("%d addresses are remembered", len(x.contacts.all))
	}
	for k := range 2 * maxContacts {
		x.addHearsay(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(k >> 8), byte(k)}), 6881))
	}
	if len(x.contacts.all) != maxContacts {
		t.Errorf("%d addresses are remembered", len(x.contacts.all))
	}
	for _, c := range x.contacts.all {
		c.next = time.Hour
	}
	known := netip.MustParseAddrPort("10.1.0.5:6881")
	x.contacts.at[known].fails = 1
	if x.addHearsay(netip.MustParseAddrPort("10.1.99.99:6881")) == nil || x.contacts.at[known] != nil {
		t.Error("an address where nobody answered keeps another out")
	}
}

// No peer is looked for beyond the own network, or at an address of nobody.
func TestStaysOnTheLink(t *testing.T) {
	x := newExchange(t)
	x.cfg.Network = netip.MustParsePrefix("10.9.9.0/24")
	for addr, want := range map[string]bool{
		"10.9.9.2:6881": true, "10.9.8.2:6881": false, "8.8.8.8:6881": false, "[::1]:1": false,
		"10.9.9.3:0": false, "0.0.0.0:1": false, "224.0.0.1:1": false, "10.9.9.9:6881": false,
	} {
		at := netip.MustParseAddrPort(addr)
		if x.AddPeer(at, false); x.contacts.at[at] != nil != want {
			t.Errorf("%s is dialled: %v", addr, !want)
		}
	}
}

// An address that took more than an image, and gives nothing, shares its turn
// with all that do the same; who gives something, or takes what it needs, does
// not.
func TestTakersAreKnown(t *testing.T) {
	x := newExchange(t)
	x.SetTime(time.Second)
	have(t, x, []someone{{"10.0.0.1", 1, fresh, false}, {"10.0.0.2", 1, giving, false}, {"10.0.0.3", 1, fresh, false}})
	for _, p := range x.peers {
		last := p.Addr.Addr().As4()[3]
		times := map[byte]int{1: 3, 2: 3, 3: 1}[last]
		for range times {
			x.countSent(p, int(x.cfg.Image.Size))
		}
		if want := last == 1; p.lane.Taker != want {
			t.Errorf("10.0.0.%d: %+v", last, p.lane)
		}
	}
}

// A node that knows many addresses leaves room for those who come later, and
// dials the first node whatever it knows.
func TestDialsEnough(t *testing.T) {
	for _, c := range []struct {
		contacts, peers, least, most int
		origin                       bool
	}{
		{contacts: 50, peers: 0, least: 16, most: 16},
		{contacts: 90, peers: 60, least: 16, most: 16},
		{contacts: 150, peers: 30, least: 10, most: 10},
		{contacts: 150, peers: 40},
		{contacts: 150, peers: 40, origin: true, least: 1, most: 1},
		{contacts: 150, peers: maxPeers, origin: true, least: 1, most: 1},
	} {
		x := newExchange(t)
		for n := range c.contacts {
			addr := netip.MustParseAddrPort(fmt.Sprintf("10.0.0.%d:6881", n+1))
			x.contacts.add(&contact{addr: addr, origin: c.origin && n == 0})
		}
		for range c.peers {
			x.peers = append(x.peers, &peer{Endpoint: Endpoint{Dialled: netip.MustParseAddrPort("10.9.9.1:1")}})
		}
		x.dial()
		if due := x.Commands(); len(due) < c.least || len(due) > c.most || c.origin && len(due) == 1 && due[0] != (Dial{x.contacts.all[0].addr}) {
			t.Errorf("%+v: %d dialled", c, len(due))
		}
	}
}

// Of two connections with one name the one that stays gets the address of the other,
// that of the first node only when it proved that the name is its own.
func TestWhoGetsTheFirstNodesAddress(t *testing.T) {
	for _, first := range []bool{false, true} {
		for _, proved := range []bool{false, true} {
			p, q := &peer{contact: &contact{origin: first}}, &peer{proved: proved}
			p.handContact(q)
			if handed := q.contact != nil; handed != (proved || !first) || q.named() != (proved && first) {
				t.Errorf("first %v, proved %v: handed %v, named %v", first, proved, handed, q.named())
			}
		}
	}
}
