package supervise

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
)

// A program that is not always wanted waits for the end of its input first, and then
// until there is something to do for it.
func TestAwait(t *testing.T) {
	input, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{}, 1)
	p := program{input: input, wanted: func() bool { asked <- struct{}{}; return true }}
	begun := make(chan error, 1)
	go func() { begun <- p.await(t.Context(), slog.New(slog.DiscardHandler)) }()
	select {
	case <-asked:
		t.Error("it is asked before its input has ended")
	default:
	}
	if err := end.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-begun; err != nil {
		t.Error(err)
	}
	// It does not wait for ever for an input that cannot be read, such as this end.
	_, unreadable, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer unreadable.Close()
	p = program{input: unreadable, wanted: func() bool { return true }}
	if err := p.await(t.Context(), slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	p = program{wanted: func() bool { cancel(); return false }}
	if err := p.await(ctx, slog.New(slog.DiscardHandler)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v for a program that nobody wants", err)
	}
}
