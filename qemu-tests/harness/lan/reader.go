package lan

import (
	"encoding/binary"
	"fmt"
	"io"
)

// reader cuts a stream into frames without copying them.
type reader struct {
	from       io.Reader
	buf        []byte
	start, end int
}

func newReader(from io.Reader) *reader { return &reader{from: from, buf: make([]byte, 256<<10)} }

// whole tells whether the next frame is here already.
func (r *reader) whole() bool {
	have := r.end - r.start
	return have >= headerSize && have >= headerSize+int(binary.BigEndian.Uint32(r.buf[r.start:]))
}

// next returns a frame with its length prefix, valid until the next call.
func (r *reader) next() ([]byte, error) {
	for {
		if have := r.end - r.start; have >= headerSize {
			n := int(binary.BigEndian.Uint32(r.buf[r.start:]))
			if n > MaxFrame {
				return nil, fmt.Errorf("frame of %d bytes, the longest is %d: not a stream of frames", n, MaxFrame)
			}
			if have >= headerSize+n {
				framed := r.buf[r.start : r.start+headerSize+n]
				r.start += headerSize + n
				return framed, nil
			}
		}
		if r.start > 0 {
			copy(r.buf, r.buf[r.start:r.end])
			r.start, r.end = 0, r.end-r.start
		}
		n, err := r.from.Read(r.buf[r.end:])
		r.end += n
		if n == 0 && err != nil {
			return nil, err
		}
	}
}
