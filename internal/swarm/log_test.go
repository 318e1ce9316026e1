package swarm

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/journal"
)

// stuckLog takes no line with a certain message until it is freed.
type stuckLog struct {
	slog.Handler
	at    string
	stuck chan struct{} // gets a value for each that waits
	free  chan struct{}
}

func (l stuckLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == l.at {
		select {
		case l.stuck <- struct{}{}:
		default:
		}
		<-l.free
	}
	return l.Handler.Handle(ctx, r)
}

func (l stuckLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	l.Handler = l.Handler.WithAttrs(attrs)
	return l
}

func newStuckLog(at string) (stuckLog, *journal.Journal) {
	out := &journal.Journal{}
	return stuckLog{slog.NewTextHandler(out, nil), at, make(chan struct{}, 1), make(chan struct{})}, out
}

// A log that takes nothing, as that on a stopped terminal, stops neither the exchange
// nor its end.
func TestALogThatHangsStopsNobody(t *testing.T) {
	info, data := newImage(t, 8)
	seed := start(t, info, "seed", data)
	log, out := newStuckLog("peer")
	store := &memStore{pieces: map[int][]byte{}}
	s, err := New(Config{Info: info, Store: store, Key: identitytest.Key(t, "node"), Listen: netip.MustParseAddrPort("127.0.0.1:0"),
		Budget: info.Size, Log: slog.New(log)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	node := &testSwarm{Swarm: s}
	wantAll(s)
	node.AddPeer(seed.Addr(), false)
	<-log.stuck
	eventually(t, "the node is complete", func() bool { return store.count() == info.NumPieces() })
	node.wantNothing() // the owner answers
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	close(log.free)
	eventually(t, "the log goes on", func() bool { return out.Says("msg=peer ") })
}

// What a slow log takes is in order, and what it does not take is counted.
func TestASlowLogLosesLines(t *testing.T) {
	log, out := newStuckLog("line 0")
	queued := newQueuedLog(slog.New(log))
	own := slog.New(queued).With("by", "owner")
	own.Info("line 0")
	<-log.stuck
	const beyond = 7
	for i := range maxLines + beyond {
		own.Info(fmt.Sprintf("line %d", i+1))
	}
	close(log.free)
	queued.end()
	<-queued.queue.written
	next := 0
	for line := range strings.Lines(out.String()) {
		if strings.Contains(line, fmt.Sprintf("msg=\"line %d\" by=owner", next)) {
			next++
		} else if !strings.Contains(line, fmt.Sprintf("lines=%d", beyond)) {
			t.Fatalf("instead of line %d: %s", next, line)
		}
	}
	if next != maxLines+1 || !out.Says("lines are lost") {
		t.Errorf("%d lines were written", next)
	}
}
