// Package tail keeps the end of what a program prints.
//
// It knows nothing of lines but the last one, and nothing of programs. The invariant: a
// buffer never holds more than its limit, however much is written to it.
package tail

import "strings"

// Buffer is an io.Writer that keeps the last bytes written to it. It is not safe for
// concurrent use; exec.Cmd writes from one goroutine when it is both of its outputs.
type Buffer struct {
	limit int
	data  []byte
}

// New returns an empty buffer for up to limit bytes.
func New(limit int) *Buffer { return &Buffer{limit: limit} }

// Write implements io.Writer. It never fails.
func (b *Buffer) Write(p []byte) (int, error) {
	b.data = append(b.data, p...)
	if over := len(b.data) - b.limit; over > 0 {
		b.data = append(b.data[:0], b.data[over:]...)
	}
	return len(p), nil
}

// Bytes is what the buffer holds, until the next Write.
func (b *Buffer) Bytes() []byte { return b.data }

// String returns what the buffer holds.
func (b *Buffer) String() string { return string(b.data) }

// LastLine is the last line that is not empty, without spaces around it; "" for none.
func (b *Buffer) LastLine() string {
	all := strings.TrimSpace(b.String())
	return all[strings.LastIndexByte(all, '\n')+1:]
}
