package notify

import "testing"

func TestASignalWakesOnceForAllBefore(t *testing.T) {
	s := NewSignal()
	s.Send()
	s.Send() // waits for nobody
	if <-s; len(s) != 0 {
		t.Error("two signals before the wake-up count twice")
	}
	s.Send()
	if len(s) != 1 {
		t.Error("a signal after the wake-up is lost")
	}
}
