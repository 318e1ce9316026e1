//go:build !node

package main

import (
	"strings"
	"sync"

	"viver.lan/internal/tail"
)

// lastLines keeps the end of a log while another goroutine shows it.
type lastLines struct {
	mu  sync.Mutex
	end *tail.Buffer
}

// What is kept and shown of a log.
const (
	keptLog   = 8 << 10 // bytes
	shownLogs = 12      // lines
)

// Write implements io.Writer.
func (l *lastLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end == nil {
		l.end = tail.New(keptLog)
	}
	return l.end.Write(p)
}

// String returns the last lines that are whole.
func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end == nil {
		return ""
	}
	text := l.end.String()
	lines := strings.SplitAfter(text[:strings.LastIndexByte(text, '\n')+1], "\n")
	return strings.Join(lines[max(0, len(lines)-1-shownLogs):], "")
}
