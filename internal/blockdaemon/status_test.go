package blockdaemon

import (
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
