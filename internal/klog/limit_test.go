package klog

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// limitedLog logs into a buffer, by a clock that stands.
func limitedLog() (log *slog.Logger, out *bytes.Buffer, clock *time.Time) {
	out, clock = new(bytes.Buffer), new(time.Time)
	*clock = time.Now()
	h := Limit(slog.NewTextHandler(out, nil)).(*limited)
	h.counts.now = func() time.Time { return *clock }
	return slog.New(h), out, clock
}

func TestAFloodFillsNoLog(t *testing.T) {
	log, out, clock := limitedLog()
	for second := range 300 {
		for n := range 100 { // each from elsewhere, by a logger of its own
			log.With("from", n).Warn("packet dropped", "second", second)
		}
		*clock = clock.Add(time.Second)
	}
	lines, most := strings.Count(out.String(), "\n"), maxBurst+int(300*time.Second/refill)
	if lines > most || lines < most-1 {
		t.Errorf("%d lines of 30,000, want %d", lines, most)
	}
	written, missing := lines, 0
	for line := range strings.Lines(out.String()) {
		var n int
		if _, count, ok := strings.Cut(line, leftOut+"="); ok {
			fmt.Sscan(count, &n)
		}
		missing += n
	}
	if written+missing < 29_000 {
		t.Errorf("%d lines written and %d said to be missing, of 30,000", written, missing)
	}
}

func TestOneFloodHidesNoOtherMessage(t *testing.T) {
	log, out, clock := limitedLog()
	for range 10 * maxBurst {
		log.Warn("packet dropped")
	}
	log.Info("packet dropped")
	log.Warn("disk full")
	for _, want := range []string{"level=INFO msg=\"packet dropped\"", "disk full"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no line %q", want)
		}
	}
	*clock = clock.Add(refill)
	out.Reset()
	log.Warn("packet dropped")
	if want := fmt.Sprintf("%s=%d", leftOut, 9*maxBurst); !strings.Contains(out.String(), want) {
		t.Errorf("after the flood: %q, want %s", out, want)
	}
}

func TestTextsWithoutEndShareABound(t *testing.T) {
	log, out, clock := limitedLog()
	for n := range 20 * maxMessages {
		log.Warn(fmt.Sprint("packet from ", n))
	}
	if lines := strings.Count(out.String(), "\n"); lines > maxMessages+maxBurst {
		t.Errorf("%d lines", lines)
	}
	*clock = clock.Add(maxBurst * refill)
	out.Reset()
	log.Warn("disk full")
	log.Warn("packet from elsewhere")
	if lines := strings.Count(out.String(), "\n"); lines != 2 {
		t.Errorf("long after the flood: %q", out)
	}
}
