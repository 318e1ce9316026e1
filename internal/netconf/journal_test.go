package netconf

import (
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// journal is a log that a test reads while it is written.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) says(text string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Contains(j.text.String(), text)
}

func newJournal(t *testing.T) (*journal, *slog.Logger) {
	j := &journal{}
	return j, slog.New(slog.NewTextHandler(io.MultiWriter(j, t.Output()), &slog.HandlerOptions{Level: slog.LevelDebug}))
}
