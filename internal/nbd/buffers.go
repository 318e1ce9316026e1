package nbd

import (
	"math/bits"
	"sync"
)

// Read buffers come in powers of two from 4 KiB to 1 MiB, each with room for
// any reply header in front, so that header and data are one write. Longer
// reads are rare enough to be allocated.
const (
	smallestClass = 12
	largestClass  = 20
)

// buffers is a pool of reply buffers.
type buffers struct {
	classes [largestClass - smallestClass + 1]sync.Pool
}

// class returns the index of the smallest class that holds length bytes, or
// false when none does.
func class(length int) (int, bool) {
	c := max(bits.Len(uint(length-1)), smallestClass)
	return c - smallestClass, c <= largestClass
}

// get returns a buffer of headroom+length bytes; length is at least 1.
func (b *buffers) get(length int) *[]byte {
	c, pooled := class(length)
	if !pooled {
		buf := make([]byte, headroom+length)
		return &buf
	}
	buf, ok := b.classes[c].Get().(*[]byte)
	if !ok {
		fresh := make([]byte, headroom+1<<(c+smallestClass))
		buf = &fresh
	}
	*buf = (*buf)[:headroom+length]
	return buf
}

// put takes a buffer of get's back.
func (b *buffers) put(buf *[]byte) {
	if c, pooled := class(len(*buf) - headroom); pooled {
		b.classes[c].Put(buf)
	}
}
