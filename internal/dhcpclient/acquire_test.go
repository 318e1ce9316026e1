package dhcpclient

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
		got := noAnswerNotice("eth0", up)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("after %s: %q, want %q in it", up, got, w)
			}
		}
	}
}

// A server behind a port that opens after 30 s is asked within seconds; one
// that comes any time later within half a minute, by few questions.
func TestAskPause(t *testing.T) {
	const every = AskEvery
	for up, want := range map[time.Duration]time.Duration{
		0:                         every / 16,
		stpDelay:                  every / 16,
		frequentFor:               every / 16,
		frequentFor + every/2:     every / 2,
		frequentFor + every:       every,
		100 * time.Hour:           every,
		frequentFor + 2*time.Hour: every,
	} {
		if got := AskPause(up, every); got != want {
			t.Errorf("up for %s: %s, want %s", up, got, want)
		}
	}
	questions := 0
	for up := time.Duration(0); up < 10*time.Minute; up += AskPause(up, every) + OfferWait {
		questions++
	}
	if questions > 30 {
		t.Errorf("%d questions in the first ten minutes", questions)
	}
}
