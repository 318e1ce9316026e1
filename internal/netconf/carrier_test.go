package netconf

import (
	"strings"
	"testing"
	"time"
)

func TestNoAnswerYet(t *testing.T) {
	for up, want := range map[time.Duration][]string{
		12400 * time.Millisecond: {"eth0", "12 s", "spanning tree", "30 s"},
		95 * time.Second:         {"eth0", "95 s", "DHCP server"},
	} {
		got := noAnswerYet("eth0", up)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("after %s: %q, want %q in it", up, got, w)
			}
		}
	}
}

func TestCable(t *testing.T) {
	var c cable
	now := time.Now()
	for i, step := range []struct {
		carrier bool
		says    string // "" for nothing
		back    bool
	}{
		{true, "", false},
		{false, "cable pulled", false},
		{false, "", false},
		{true, "back after 14 s", true},
		{true, "", false},
		{false, "cable pulled", false},
	} {
		news, back := c.look(step.carrier, now.Add(time.Duration(i)*7*time.Second))
		if back != step.back || (news == "") != (step.says == "") || !strings.Contains(news, step.says) {
			t.Errorf("look %d: %q, back %v; want %q, %v", i, news, back, step.says, step.back)
		}
	}
}

// A server behind a port that opens after 30 s is asked within seconds; one
// that comes any time later within half a minute, by few questions.
func TestAskPause(t *testing.T) {
	const every = askServersEvery
	for up, want := range map[time.Duration]time.Duration{
		0:                      every / 16,
		treeDelay:              every / 16,
		askDense:               every / 16,
		askDense + every/2:     every / 2,
		askDense + every:       every,
		100 * time.Hour:        every,
		askDense + 2*time.Hour: every,
	} {
		if got := askPause(up, every); got != want {
			t.Errorf("up since %s: %s, want %s", up, got, want)
		}
	}
	questions := 0
	for up := time.Duration(0); up < 10*time.Minute; up += askPause(up, every) + askServersWait {
		questions++
	}
	if questions > 30 {
		t.Errorf("%d questions in the first ten minutes", questions)
	}
}
