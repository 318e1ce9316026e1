package control

import (
	"log/slog"
	"path/filepath"
	"testing"

	"viver.lan/internal/contain"
)

// moody panics when it is asked how it is.
type moody struct{ *fakeDaemon }

func (moody) Status() Status       { panic("a fault of the status") }
func (moody) MemberStatus() Status { panic("a fault of the status") }

func TestAFaultEndsOneQuestion(t *testing.T) {
	var faults contain.Counter
	path := filepath.Join(t.TempDir(), "s")
	done := make(chan error, 1)
	go func() {
		done <- Serve(t.Context(), path, -1, moody{newFakeDaemon()}, faults.Watch(slog.New(slog.DiscardHandler)))
	}()
	c := NewClient(path)
	for faults.Total() < 3 { // the first ones may come before the socket is there
		if _, err := c.Status(t.Context()); err == nil {
			t.Fatal("the fault is answered")
		}
		if lost := c.follow(t.Context(), "watch", func(*Status) bool { return true }); lost == nil {
			t.Fatal("a follower gets the fault")
		}
		select {
		case err := <-done:
			t.Fatalf("the server ended with %v", err)
		default:
		}
	}
	if _, err := c.readRange(t.Context(), "nothing", 0, 1); err == nil {
		t.Error("a file that is not there")
	}
}
