package blockdaemon

import (
	"testing"
	"time"
)

// The published image is left when it was incomplete for a while, or at once when the owner
// wants the other one.
func TestOffersSecond(t *testing.T) {
	for _, c := range []struct {
		wants    bool
		complete time.Duration
		want     bool
	}{
		{true, 0, true},
		{true, leaveAfter - 1, true},
		{true, leaveAfter, false},
		{true, time.Hour, false},
		{false, 0, false},
		{false, time.Hour, false},
	} {
		if got := offersSecond(c.wants, c.complete); got != c.want {
			t.Errorf("wanted: %v, complete %s ago: offered: %v, want %v", c.wants, c.complete, got, c.want)
		}
	}
}
