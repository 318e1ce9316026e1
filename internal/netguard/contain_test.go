package netguard

import (
	"log/slog"
	"testing"

	"viver.lan/internal/contain"
)

// A part of the guard that panicked starts again, with its locks free, and is
// left alone once it has ended by itself.
func TestAFaultRestartsAPart(t *testing.T) {
	var faults contain.Counter
	g := New(Config{Log: faults.Watch(slog.New(slog.DiscardHandler))})
	runs := 0
	g.restart(t.Context(), "a test", func() {
		g.changing.Lock()
		defer g.changing.Unlock()
		g.set(func() {
			if runs++; runs < 3 {
				panic("a fault of a frame")
			}
		})
	})
	if runs != 3 || faults.Total() != 2 {
		t.Errorf("ran %d times with %d faults, want 3 and 2", runs, faults.Total())
	}
	g.leaseNow() // not locked out
}

// Who asks the guard does not wait for what it does over netlink.
func TestReadersDoNotWaitForAChange(t *testing.T) {
	g := New(Config{Log: slog.New(slog.DiscardHandler)})
	g.changing.Lock() // netlink is slow, or hangs
	defer g.changing.Unlock()
	g.dhcpLink()
	g.addressHolder()
	if !g.Plugged() {
		t.Error("no carrier before the first check")
	}
}
