// Package journal keeps what programs print and loggers write, for tests that
// read it meanwhile.
package journal

import (
	"strings"
	"sync"
)

// Journal is a writer whose text can be read at any time. The zero value is
// empty. It is safe for concurrent use and must not be copied.
type Journal struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer; it does not fail.
func (j *Journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

// String returns all that was written so far.
func (j *Journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// Says reports whether text was written so far.
func (j *Journal) Says(text string) bool { return strings.Contains(j.String(), text) }
