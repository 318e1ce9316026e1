package blockdaemon

import "testing"

// A disk that hangs must not keep reads waiting that need nothing of it.
func TestNothingOfACacheDiskIsReadInTheSessionsLoop(t *testing.T) {
	if (section{}).here("/cache/viver-cache/pieces") != nil {
		t.Error("a session waits for the cache disk")
	}
	if (section{}).here("") == nil {
		t.Error("a session starts a goroutine for what is in memory")
	}
}
