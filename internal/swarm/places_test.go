package swarm

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"viver.lan/internal/exchange"
	"viver.lan/internal/swarm/wire"
)

// One address opens connections without an end, which say nothing or stop after
// the handshake; a node at another address is served meanwhile.
func TestOneAddressKeepsNobodyOut(t *testing.T) {
	info, data := newImage(t, 20)
	const perHost = exchange.MaxPerHost
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
	eventually(t, "the address has its places", func() bool { p, _ := n.Status(); return len(p) == perHost })
	other := start(t, info, "n", nil)
	other.AddPeer(n.Addr(), false)
	eventually(t, "the other one is complete", hasAll(other))
	if p, _ := n.Status(); len(p) > perHost+1 {
		t.Errorf("%d peers", len(p))
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
		"blocks of a fast link":        {wire.Message{Type: wire.Piece}, 50_000, false}, // exchange counts those of no use
		"a budget that changes":        {wire.Message{Type: wire.Extended, ExtendedID: wire.IDHandshake}, 2, false},
		"a hello 200 times a second":   {wire.Message{Type: wire.Extended, ExtendedID: wire.IDHandshake}, 200, true},
		"addresses 200 times a second": {wire.Message{Type: wire.Extended, ExtendedID: wire.IDPex}, 200, true},
		"all, 200 times a second":      {wire.Message{Type: wire.HaveAll}, 200, true},
		"choke 500 times a second":     {wire.Message{Type: wire.Choke}, 500, true},
		"have without an end":          {wire.Message{Type: wire.Have}, 20_000, true},
	} {
		w, now, held := newWork(new(exchange.Rates), netip.MustParseAddr("10.0.0.1"), 0, pieces), time.Duration(0), false
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

// What an address may have us do does not begin again with each connection; and as many
// as it may have, which say what a node says, do not hold each other back.
func TestWorkOfOneAddress(t *testing.T) {
	const pieces, seconds = 16384, 20
	hosts, host := new(exchange.Rates), netip.MustParseAddr("10.0.0.1")
	pex := costOf(wire.Message{Type: wire.Extended, ExtendedID: wire.IDPex}, pieces)
	done, now := 0, time.Duration(0)
	for range arrivalsPerSecond * seconds { // each sends addresses until it is held back
		now += time.Second / arrivalsPerSecond
		for w := newWork(hosts, host, now, pieces); charge(w.rate, pex, now) == 0 && charge(w.host, pex, now) == 0; {
			done += pex
		}
	}
	if most := workAtOnce + 2*pieces + seconds*hostWork*workPerSecond; done > most || done < most/2 {
		t.Errorf("an address that connects again and again has us do %d, want up to %d", done, most)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	now += time.Minute
	var all []work
	for range exchange.MaxPerHost {
		all = append(all, newWork(hosts, host, now, pieces))
	}
	for n := range all {
		greeting := costOf(wire.Message{Type: wire.Bitfield}, pieces) + costOf(wire.Message{Type: wire.Extended, ExtendedID: wire.IDHandshake}, pieces)
		if all[n].done(ctx, greeting, now) != nil {
			t.Fatal("a greeting is held back")
		}
	}
	for range 1000 * seconds {
		now += time.Second / 1000
		for n := range all {
			if all[n].done(ctx, 1, now) != nil {
				t.Fatal("news of pieces are held back")
			}
		}
	}
}

// Those who are connected from one address share its limit, and others have theirs.
func TestConnectionsOfAnAddressShareItsWork(t *testing.T) {
	info, data := newImage(t, 4)
	n := start(t, info, "seed", data)
	for k, host := range []byte{2, 2, 2, 3} {
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, host)}}
		c, err := from.Dial("tcp", n.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		hs := wire.Handshake{Infohash: info.Infohash, Fast: true}
		copy(hs.PeerID[:], fmt.Sprintf("-XX0000-%012d", k))
		c.Write(hs.Append(nil))
	}
	limits := func() (limits map[*rate.Limiter]int) {
		limits = make(map[*rate.Limiter]int)
		n.Do(func(*exchange.Exchange) {
			for _, c := range n.conns {
				limits[c.work.host]++
			}
		})
		return limits
	}
	eventually(t, "all are here", func() bool { p, _ := n.Status(); return len(p) == 4 })
	if got := slices.Sorted(maps.Values(limits())); !slices.Equal(got, []int{1, 3}) {
		t.Errorf("so many connections share limits: %v", got)
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
