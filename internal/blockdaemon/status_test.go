package blockdaemon

import (
	"path/filepath"
	"testing"

	"viver.lan/internal/cluster"
	"viver.lan/internal/control"
)

// The status has the cluster's words, which it may not import.
func TestTheStatusHasTheClustersWords(t *testing.T) {
	for ours, theirs := range map[control.MemberState]cluster.State{
		control.Alive: cluster.Alive, control.Dead: cluster.Dead, control.Left: cluster.Left,
	} {
		if string(ours) != string(theirs) {
			t.Errorf("the state %q is called %q", theirs, ours)
		}
	}
	for ours, theirs := range map[control.NameState]cluster.NameState{
		control.Owned: cluster.Owned, control.Unconfirmed: cluster.Unconfirmed, control.Disputed: cluster.Disputed,
	} {
		if string(ours) != string(theirs) {
			t.Errorf("the standing %q is called %q", theirs, ours)
		}
	}
}

// The status names the runes that the boot left as broken or degraded, from the moment when
// it knows, and no others.
func TestBootRunes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "runes-boot.json")
	var b bootRunes
	if got := b.read(file); got != nil {
		t.Errorf("before the boot knows: %v", got)
	}
	var all []control.RuneResult
	for _, outcome := range []string{"applied", "broken", "skipped", "degraded"} {
		all = append(all, control.RuneResult{RuneOutcome: control.RuneOutcome{Rune: "a-" + outcome, Outcome: outcome, Reason: "why"}})
	}
	if err := control.WriteState(file, all); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := b.read(file); len(got) != 2 || got[0].Rune != "a-broken" || got[1].Rune != "a-degraded" {
			t.Errorf("%+v", got)
		}
	}
}
