package cluster

import (
	"sync"
	"testing"
	"time"

	"viver.lan/internal/event"
)

// stuckSink is a sink of events that nobody reads: a write to it ends with free.
type stuckSink struct {
	written func()        // called by the first write
	free    chan struct{} // closed in the end
}

func (s stuckSink) Write(b []byte) (int, error) {
	s.written()
	<-s.free
	return len(b), nil
}

func TestNothingWaitsForAReport(t *testing.T) {
	t.Parallel()
	written := make(chan struct{})
	sink := stuckSink{sync.OnceFunc(func() { close(written) }), make(chan struct{})}
	cfg := config(t, 15)
	cfg.Events = event.NewLog("test", func() time.Duration { return 0 }, sink)
	c, _ := start(t, cfg)
	t.Cleanup(sync.OnceFunc(func() { close(sink.free) })) // before the cluster ends
	start(t, config(t, 16, c.Addr()))
	<-written
	start(t, config(t, 17, c.Addr()))
	waitFor(t, c, "the one that came after", alive(nodeID(17)))
}

func TestReportsAreBounded(t *testing.T) {
	t.Parallel()
	var r reports
	first := -1
	for i := range maxReports + 1 {
		r.add(func() { first = i })
	}
	if r.pending[0](); len(r.pending) != maxReports || first != 1 {
		t.Errorf("%d wait, the first is %d, want %d and 1", len(r.pending), first, maxReports)
	}
}
