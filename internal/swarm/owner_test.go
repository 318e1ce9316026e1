package swarm

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"viver.lan/internal/contain"
	"viver.lan/internal/exchange"
	"viver.lan/internal/identity/identitytest"
)

// BenchmarkDo is what it costs to report something to the exchange, with eight
// connections at it.
func BenchmarkDo(b *testing.B) {
	info, _ := newImage(b, 4)
	s, err := New(Config{Info: info, Store: &memStore{pieces: map[int][]byte{}}, Key: identitytest.Key(b, "n"), Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { s.first.Close(); close(s.stop); <-s.ended }()
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.do(func(x *exchange.Exchange) { x.SetPlayhead(1) })
		}
	})
}

// What is asked of a swarm that has ended comes to nothing, and nobody waits.
func TestAfterTheEnd(t *testing.T) {
	info, _ := newImage(t, 4)
	s, err := New(Config{Info: info, Store: &memStore{pieces: map[int][]byte{}}, Key: identitytest.Key(t, "n"), Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	s.SetWanted(0, 4, always)
	if peers, _ := s.Status(); len(peers) != 0 {
		t.Errorf("peers %v", peers)
	}
}

// A fault in what somebody has the owner do is that one's, and the owner goes on.
func TestAFaultIsTheCallers(t *testing.T) {
	s := idleSwarm(t)
	err := contain.Call(slog.New(slog.DiscardHandler), "a call", func() error {
		s.do(func(*exchange.Exchange) { panic("a fault") })
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "a fault") {
		t.Errorf("the caller hears %v", err)
	}
	s.SetPlayhead(1) // answered as ever
}
