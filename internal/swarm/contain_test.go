package swarm

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"testing"

	"viver.lan/internal/contain"
	"viver.lan/internal/exchange"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/journal"
)

// faults panic once at each place that is named, wherever that is.
type faults struct {
	mu   sync.Mutex
	left map[string]bool
}

func (f *faults) at(place string) {
	f.mu.Lock()
	now := f.left[place]
	delete(f.left, place)
	f.mu.Unlock()
	if now {
		panic("fault at " + place)
	}
}

func (f *faults) over() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.left) == 0
}

// faultyStore is a store with faults.
type faultyStore struct {
	*memStore
	*faults
}

func (s faultyStore) Open(ctx context.Context, i int, urgent bool) (Piece, error) {
	s.at("open")
	return s.memStore.Open(ctx, i, urgent)
}

func (s faultyStore) Put(i int, parts [][]byte) error {
	s.at("put")
	return s.memStore.Put(i, parts)
}

// faultyLog panics where something is logged: some of that is said on the way
// from one state to the next.
type faultyLog struct {
	slog.Handler
	*faults
}

func (l faultyLog) Handle(ctx context.Context, r slog.Record) error {
	l.at(r.Message)
	return l.Handler.Handle(ctx, r)
}

func (l faultyLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return faultyLog{l.Handler.WithAttrs(attrs), l.faults}
}

// A fault ends the connection on which it shows, and no lock stays behind: both
// sides go on, and everything is fetched.
func TestAFaultEndsOneConnection(t *testing.T) {
	info, data := newImage(t, 16)
	run := func(name string, data []byte, places ...string) (*testSwarm, *memStore, *faults, *contain.Counter, *journal.Journal) {
		f := &faults{left: map[string]bool{}}
		for _, p := range places {
			f.left[p] = true
		}
		store, log, counter := &memStore{pieces: map[int][]byte{}}, &journal.Journal{}, &contain.Counter{}
		handler := faultyLog{slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}), f}
		s := launch(t, Config{Info: info, Store: faultyStore{store, f}, Key: identitytest.Key(t, name), Listen: netip.MustParseAddrPort("127.0.0.1:0"),
			Log: counter.Watch(slog.New(handler))}, store, data)
		return &testSwarm{Swarm: s}, store, f, counter, log
	}
	seed, _, seedFaults, seedCount, seedLog := run("seed", data, "peer connected", "peer", "open")
	node, store, nodeFaults, nodeCount, _ := run("node", nil, "peer")
	node.AddPeer(seed.Addr(), false)
	eventually(t, "every fault has shown", func() bool { return seedFaults.over() && nodeFaults.over() })
	eventually(t, "the node is complete", func() bool { return store.count() == info.NumPieces() })
	eventually(t, "the seed knows nobody whom it does not serve", func() bool {
		peers, _ := seed.Status()
		return len(peers) == 1
	})
	if seedCount.Total() != 3 || nodeCount.Total() != 1 {
		t.Errorf("counted %d and %d faults, want 3 and 1", seedCount.Total(), nodeCount.Total())
	}
	for _, want := range []string{"fault at peer connected", "fault at peer", "fault at open", "stack="} {
		eventually(t, "the log has "+want, func() bool { return seedLog.Says(want) })
	}
}

// A fault where a piece is hashed or stored ends that piece only: it is counted,
// and the piece is not held.
func TestAFaultInAPieceThatHasCome(t *testing.T) {
	info, data := newImage(t, 4)
	buf := data[:testPiece]
	sum := info.PieceHash(0)
	for place, sum := range map[string][]byte{"hash": sum[:1], "put": sum[:]} {
		t.Run(place, func(t *testing.T) {
			store := faultyStore{&memStore{pieces: map[int][]byte{}}, &faults{left: map[string]bool{"put": true}}}
			var counter contain.Counter
			s, err := New(Config{Info: info, Store: store, Key: identitytest.Key(t, "n"), Listen: netip.MustParseAddrPort("127.0.0.1:0"),
				Log: counter.Watch(slog.New(slog.DiscardHandler))})
			if err != nil {
				t.Fatal(err)
			}
			defer s.first.Close()
			s.verify(exchange.Verify{Piece: 0, Parts: []exchange.Part{{Buffer: &buf, End: testPiece}}, Sum: sum})
			s.Do(func(x *exchange.Exchange) {
				if counter.Total() != 1 || x.Held().Has(0) || store.Has(0) {
					t.Errorf("%d faults", counter.Total())
				}
			})
		})
	}
}
