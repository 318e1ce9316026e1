package swarm

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"viver.lan/internal/exchange"
	"viver.lan/internal/identity/identitytest"
)

func newSwarm(t testing.TB) *Swarm {
	t.Helper()
	info, _ := newImage(t, 4)
	s, err := New(Config{Info: info, Store: &memStore{pieces: map[int][]byte{}}, Key: identitytest.Key(t, "n"), Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func end(t testing.TB, s *Swarm) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkDo is what it costs to ask the exchange for something, with eight
// goroutines at it.
func BenchmarkDo(b *testing.B) {
	s := newSwarm(b)
	defer end(b, s)
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.Do(func(x *exchange.Exchange) { x.SetPlayhead(1) })
		}
	})
}

// What is asked of a swarm that has ended comes to nothing, and nobody waits.
func TestAfterTheEnd(t *testing.T) {
	s := newSwarm(t)
	end(t, s)
	s.Changed(0)
	s.Do(func(*exchange.Exchange) { t.Error("it has not ended") })
}

// A fault in what a connection reports ends that connection, and the owner goes on.
func TestAFaultIsTheConnections(t *testing.T) {
	s := newSwarm(t)
	defer end(t, s)
	near, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(s.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	newConn(s, near).post(func(*exchange.Exchange) { panic("a fault") })
	s.Do(func(x *exchange.Exchange) { x.SetPlayhead(1) })
	if _, err := near.Write([]byte{0}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the connection goes on: %v", err)
	}
}
