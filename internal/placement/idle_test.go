package placement

import (
	"testing"
	"time"
)

// A member that is left pieces and does not come for them loses its place; one
// that gets on, however slowly, that has what it shall have, or that was away,
// does not.
func TestIdle(t *testing.T) {
	type look struct {
		after   time.Duration // since the look before
		have    int
		lacking bool
		idle    bool
	}
	for name, looks := range map[string][]look{
		"slow":                            {{0, 0, true, false}, {100 * time.Second, 1, true, false}, {100 * time.Second, 2, true, false}},
		"idle":                            {{0, 0, true, false}, {60 * time.Second, 0, true, false}, {60 * time.Second, 0, true, true}, {time.Second, 0, false, true}, {time.Second, 1, true, false}},
		"satisfied":                       {{0, 9, false, false}, {100 * time.Second, 9, false, false}, {100 * time.Second, 9, false, false}, {time.Second, 9, true, false}},
		"away":                            {{0, 5, true, false}, {time.Hour, 0, true, false}},
		"idle, and then away for a while": {{0, 0, true, false}, {idleLimit, 0, true, true}, {5 * time.Minute, 0, true, true}},
	} {
		var i Idle
		now := time.Duration(0)
		for n, l := range looks {
			now += l.after
			if got := i.Update(now, "m", l.have, l.lacking); got != l.idle {
				t.Errorf("%s, look %d: idle %v", name, n, got)
			}
		}
	}
	var i Idle
	for n := range 3 * idleMost {
		i.Update(0, time.Duration(n).String(), 0, true)
	}
	if len(i.members) > idleMost {
		t.Errorf("%d members are remembered", len(i.members))
	}
}
