package netguard

import (
	"strings"
	"testing"
	"time"
)

func TestCarrier(t *testing.T) {
	var c carrier
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
		news, back := c.update(step.carrier, now.Add(time.Duration(i)*7*time.Second))
		if back != step.back || (news == "") != (step.says == "") || !strings.Contains(news, step.says) {
			t.Errorf("check %d: %q, back %v; want %q, %v", i, news, back, step.says, step.back)
		}
	}
}
