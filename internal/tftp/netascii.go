package tftp

import (
	"bufio"
	"io"
)

// netascii is a file as a client gets it that asks for text: a line feed becomes
// carriage return and line feed, a carriage return is followed by a zero byte
// (RFC 1350, section 1; RFC 764).
type netascii struct {
	from    *bufio.Reader
	pending string // what has to be read first
}

func newNetascii(r io.Reader) *netascii { return &netascii{from: bufio.NewReader(r)} }

// Read returns what is ready, at least one byte.
func (a *netascii) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(a.pending) > 0 {
			k := copy(p[n:], a.pending)
			n, a.pending = n+k, a.pending[k:]
			continue
		}
		c, err := a.from.ReadByte()
		if err != nil {
			return n, err
		}
		switch c {
		case '\n':
			a.pending = "\r\n"
		case '\r':
			a.pending = "\r\x00"
		default:
			p[n] = c
			n++
		}
	}
	return n, nil
}
