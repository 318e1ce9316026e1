package swarm

import (
	"context"
	"net/netip"
	"testing"

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
	s.Want(0, 4, true)
	if peers, _ := s.Status(); len(peers) != 0 {
		t.Errorf("peers %v", peers)
	}
}
