package notify

import "testing"

func TestEachFollowerHearsOnce(t *testing.T) {
	var n Notifier
	n.Notify() // nobody follows
	one, stopOne := n.Watch()
	two, stopTwo := n.Watch()
	defer stopTwo()
	pending := func() [2]int { return [2]int{len(one), len(two)} }
	if got := pending(); got != [2]int{0, 0} {
		t.Errorf("before any change %d are pending", got)
	}
	n.Notify()
	n.Notify() // waits for nobody
	if got := pending(); got != [2]int{1, 1} {
		t.Errorf("after two changes %d are pending, want one each", got)
	}
	<-one
	n.Notify()
	if got := pending(); got != [2]int{1, 1} {
		t.Errorf("a change after the first was taken: %d are pending", got)
	}
	<-one
	stopOne()
	n.Notify()
	if got := pending(); got != [2]int{0, 1} {
		t.Errorf("after one has stopped %d are pending", got)
	}
}
