package netconf

import (
	"io"
	"log/slog"
	"testing"

	"viver.lan/internal/journal"
)

// newJournal returns a log that a test reads while it is written.
func newJournal(t *testing.T) (*journal.Journal, *slog.Logger) {
	j := &journal.Journal{}
	return j, slog.New(slog.NewTextHandler(io.MultiWriter(j, t.Output()), &slog.HandlerOptions{Level: slog.LevelDebug}))
}
