package schedule

import (
	"math/bits"
	"slices"
)

// Set is a set of pieces of a fixed-size torrent.
type Set struct {
	words []uint64
	n     int // size of the universe
	count int
}

// NewSet returns an empty set that can hold the pieces 0 to n-1.
func NewSet(n int) Set { return Set{words: make([]uint64, (n+63)/64), n: n} }

// Has reports whether i is in the set.
func (s *Set) Has(i int) bool { return s.words[i>>6]&(1<<(i&63)) != 0 }

// Clone returns a copy.
func (s *Set) Clone() Set { return Set{slices.Clone(s.words), s.n, s.count} }

// Count returns the number of pieces in the set.
func (s *Set) Count() int { return s.count }

// Set puts i in or takes it out and reports whether that changed the set.
func (s *Set) Set(i int, in bool) bool {
	if s.Has(i) == in {
		return false
	}
	s.words[i>>6] ^= 1 << (i & 63)
	if in {
		s.count++
	} else {
		s.count--
	}
	return true
}

// Common draws a member of both sets, every one as likely as the others; draw(n)
// returns a number below n. It returns false when there is none.
func (s *Set) Common(o *Set, draw func(n int) int) (int, bool) {
	count := 0
	for w := range s.words {
		count += bits.OnesCount64(s.words[w] & o.words[w])
	}
	if count == 0 {
		return 0, false
	}
	nth, found := draw(count), 0
	each(0, s.n, func(w int) uint64 { return s.words[w] & o.words[w] }, func(i int) bool {
		found = i
		nth--
		return nth >= 0
	})
	return found, true
}

// Clear takes every piece out.
func (s *Set) Clear() {
	clear(s.words)
	s.count = 0
}

// each calls f for the members of the word-wise set that word returns, from
// lo up to hi, until f returns false.
func each(lo, hi int, word func(w int) uint64, f func(i int) bool) {
	if lo >= hi {
		return
	}
	for w := lo >> 6; w<<6 < hi; w++ {
		x := word(w)
		if w == lo>>6 {
			x &= ^uint64(0) << (lo & 63)
		}
		for x != 0 {
			i := w<<6 + bits.TrailingZeros64(x)
			if i >= hi {
				return
			}
			if !f(i) {
				return
			}
			x &= x - 1
		}
	}
}
