package klog

import (
	"io"
	"sync"
)

// maxRecord is what the kernel takes in one write (LOG_LINE_MAX, less the
// prefix it adds); a longer write fails as a whole.
const maxRecord = 976

// lineWriter turns each line of the text handler into one kernel log record.
type lineWriter struct {
	w       io.Writer
	program string

	mu       sync.Mutex
	priority int
}

// Write implements io.Writer; the handler holds the lock.
func (l *lineWriter) Write(p []byte) (int, error) {
	record := append(appendPrefix(nil, l.priority, l.program), p...)
	if len(record) > maxRecord {
		record = append(record[:maxRecord-4], "...\n"...)
	}
	if _, err := l.w.Write(record); err != nil {
		return 0, err
	}
	return len(p), nil
}
