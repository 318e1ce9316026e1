package blockdaemon

import (
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/journal"
)

// The log tells how a fetch goes, now and then, and once that it is done.
func TestReporter(t *testing.T) {
	var log journal.Journal
	begin := time.Now()
	start := progress{at: begin, pieces: 10}
	r := &reporter{screen: &screen{w: io.Discard}, log: slog.New(slog.NewTextHandler(&log, nil)), every: fetchingLog,
		waitFor: "nobody", first: start, last: start, logged: start}
	for _, step := range []struct {
		second, have, peers int
		want                string // of the log, since the step before
	}{
		{1, 0, 0, ""}, // it has just begun
		{5, 0, 0, ""},
		{6, 0, 0, "msg=nobody have=0 pieces=10"},
		{30, 0, 0, ""},
		{36, 0, 0, "msg=nobody have=0 pieces=10"},
		{37, 4, 1, "msg=fetching have=4 pieces=10 mb_per_second=0.1 peers=1"},
		{41, 5, 1, ""},
		{42, 6, 1, "msg=fetching have=6 pieces=10 mb_per_second=0.4 peers=1"},
		{60, 6, 1, ""}, // nothing came
		{61, 6, 0, ""},
		{66, 6, 0, "msg=nobody have=6 pieces=10"},
		{70, 10, 1, "msg=complete pieces=10 seconds=70"},
		{200, 10, 0, ""},
	} {
		before := len(log.String())
		r.report(progress{at: begin.Add(time.Duration(step.second) * time.Second), have: step.have, pieces: 10, peers: step.peers,
			received: uint64(step.have) * 1e6})
		if got := log.String()[before:]; (got == "") != (step.want == "") || !strings.Contains(got, step.want) {
			t.Errorf("after %d s it says %q, want %q", step.second, got, step.want)
		}
	}
}
