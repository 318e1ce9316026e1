package swarm

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"viver.lan/internal/contain"
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

// A fault in what peers have caused without a connection ends that, and the owner goes
// on.
func TestAFaultInWhatPeersCause(t *testing.T) {
	buf := make([]byte, testPiece)
	for what, cause := range map[string]func(s *Swarm){
		"a proof for a peer":          func(s *Swarm) { s.answer(exchange.Answer{}) },
		"the proof of a peer":         func(s *Swarm) { s.check(exchange.Check{}) },
		"a piece that has come":       func(s *Swarm) { s.verify(exchange.Verify{Parts: []exchange.Part{{Buffer: &buf, End: testPiece}}}) },
		"the end of a connection":     func(s *Swarm) { s.dial(netip.MustParseAddrPort("127.0.0.1:1")) },
		"a client that has tried uTP": func(s *Swarm) { knockByUTP(t, s) },
	} {
		t.Run(what, func(t *testing.T) {
			s := newSwarm(t)
			defer end(t, s)
			var counter contain.Counter
			s.Do(func(*exchange.Exchange) { s.ownLog = counter.Watch(slog.New(slog.DiscardHandler)) })
			owner := s.events
			s.events = make(chan event, 64)
			cause(s)
			e := <-s.events
			s.events = owner
			e.f = func(*exchange.Exchange) { panic("a fault") }
			s.post(e)
			s.Do(func(*exchange.Exchange) {
				if counter.Total() != 1 || e.fromPeers != what {
					t.Errorf("%d faults in %q", counter.Total(), e.fromPeers)
				}
			})
		})
	}
}

// knockByUTP opens a uTP connection to a swarm that does not run.
func knockByUTP(t *testing.T, s *Swarm) {
	t.Helper()
	conn, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- s.serveUTP(ctx) }()
	answer := make([]byte, 1)
	for n, end := 0, time.Now().Add(time.Minute); n == 0; { // it may not listen yet
		if time.Now().After(end) {
			t.Fatal("uTP is not answered")
		}
		_, _ = conn.Write(append([]byte{utpSyn}, make([]byte, utpHeader-1)...))
		conn.SetReadDeadline(time.Now().Add(time.Second)) // at once when nobody listens
		n, _ = conn.Read(answer)
	}
	cancel()
	<-served
}
