// Package sparsetar is the codec of files with holes in tar archives, which
// package archive/tar reads without giving their maps away and does not write.
//
// A map lists the stretches of a file that hold data; all else is zeros and is
// not in the archive. It comes in four forms: the pax records GNU.sparse.* of
// version 0.0 and 0.1, text before the data in version 1.0, and binary fields in
// and behind the header in the old GNU format (GNU tar's manual, "Storing Sparse
// Files"). Version 1.0 is what this package writes. The invariant: a map that
// was read is in order, does not overlap and ends within the file.
package sparsetar

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Segment is a stretch of a file that holds data, in bytes.
type Segment struct {
	Offset, Length int64
}

// End is the offset behind the segment, in bytes.
func (s Segment) End() int64 { return s.Offset + s.Length }

// ErrMap says that a map is none.
var ErrMap = errors.New("damaged map of a sparse file")

// BlockSize is what everything in a tar archive is a multiple of, in bytes.
const BlockSize = 512

// maxSegments bounds what an archive can make us allocate: 16 MiB.
const maxSegments = 1 << 20

// Bytes is the sum of all segments: what the archive holds of the file.
func Bytes(segments []Segment) int64 {
	var n int64
	for _, s := range segments {
		n += s.Length
	}
	return n
}

// check holds a map against the size of its file.
func check(segments []Segment, size int64) error {
	var end int64
	for _, s := range segments {
		if s.Offset < end || s.Length < 0 || s.Offset > size || s.Length > size-s.Offset {
			return fmt.Errorf("%w: %d bytes at %d of %d", ErrMap, s.Length, s.Offset, size)
		}
		end = s.End()
	}
	return nil
}

// ParseText reads the record GNU.sparse.map of version 0.1: offsets and lengths
// with commas between them. archive/tar gives the records of 0.0 in that form.
func ParseText(text string, size int64) ([]Segment, error) {
	if text == "" {
		return nil, nil
	}
	words := strings.Split(text, ",")
	if len(words)%2 != 0 || len(words)/2 > maxSegments {
		return nil, fmt.Errorf("%w: %d numbers", ErrMap, len(words))
	}
	segments := make([]Segment, 0, len(words)/2)
	for i := 0; i < len(words); i += 2 {
		offset, err1 := number(words[i])
		length, err2 := number(words[i+1])
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		segments = append(segments, Segment{offset, length})
	}
	return segments, check(segments, size)
}

func number(word string) (int64, error) {
	n, err := strconv.ParseUint(word, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%w: %.30q is no number", ErrMap, word)
	}
	return int64(n), nil
}

// ReadMap reads the map of version 1.0, which stands before the data, and
// returns its length in the archive.
func ReadMap(r io.Reader, size int64) (segments []Segment, length int64, err error) {
	d := decimals{r: r}
	count, err := d.next()
	if err != nil {
		return nil, 0, err
	}
	if count > maxSegments {
		return nil, 0, fmt.Errorf("%w: %d segments", ErrMap, count)
	}
	for range count {
		offset, err1 := d.next()
		length, err2 := d.next()
		if err := errors.Join(err1, err2); err != nil {
			return nil, 0, err
		}
		segments = append(segments, Segment{offset, length})
	}
	return segments, d.length, check(segments, size)
}

// decimals reads numbers that end in a line feed, block by block.
type decimals struct {
	r      io.Reader
	block  [BlockSize]byte
	rest   []byte // of the block
	length int64  // of all blocks read
}

func (d *decimals) next() (int64, error) {
	const longest = 19 // digits of an int64
	var word []byte
	for {
		if line, rest, ok := bytes.Cut(d.rest, []byte{'\n'}); ok {
			d.rest = rest
			return number(string(append(word, line...)))
		}
		if word = append(word, d.rest...); len(word) > longest {
			return 0, fmt.Errorf("%w: %.30q is no number", ErrMap, word)
		}
		if _, err := io.ReadFull(d.r, d.block[:]); err != nil {
			return 0, fmt.Errorf("%w: %w", ErrMap, err)
		}
		d.rest = d.block[:]
		d.length += BlockSize
	}
}

// Fields of the old GNU header and of the blocks that extend it: entries of an
// offset and a length, a flag that says whether another block follows, and in
// the header the size of the file.
const (
	gnuEntries, gnuEntryCount, gnuExtended, gnuSize = 386, 4, 482, 483
	moreEntryCount, moreExtended                    = 21, 504
	fieldSize                                       = 12
)

// ReadGNU reads the map of the old GNU format from r, which stands at the
// member's header, up to where the data begins.
func ReadGNU(r io.Reader, size int64) ([]Segment, error) {
	var block [BlockSize]byte
	if _, err := io.ReadFull(r, block[:]); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMap, err)
	}
	if real, err := field(block[gnuSize : gnuSize+fieldSize]); err != nil || real != size {
		return nil, fmt.Errorf("%w: it is for %d bytes, the file has %d", ErrMap, real, size)
	}
	segments, err := entries(nil, block[gnuEntries:], gnuEntryCount)
	extended := block[gnuExtended] != 0
	for err == nil && extended {
		if len(segments) > maxSegments {
			return nil, fmt.Errorf("%w: more than %d segments", ErrMap, maxSegments)
		}
		if _, err := io.ReadFull(r, block[:]); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMap, err)
		}
		segments, err = entries(segments, block[:], moreEntryCount)
		extended = block[moreExtended] != 0
	}
	if err != nil {
		return nil, err
	}
	return segments, check(segments, size)
}

// entries appends the segments of one block; the first empty entry ends them.
func entries(segments []Segment, table []byte, count int) ([]Segment, error) {
	for i := range count {
		entry := table[i*2*fieldSize:][:2*fieldSize]
		if entry[0] == 0 {
			break
		}
		offset, err1 := field(entry[:fieldSize])
		length, err2 := field(entry[fieldSize:])
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		segments = append(segments, Segment{offset, length})
	}
	return segments, nil
}

// field reads a number of a header: octal digits, or big-endian binary behind a
// byte 0x80.
func field(b []byte) (int64, error) {
	if b[0] == 0x80 {
		var n uint64
		for _, c := range b[1:] {
			if n > math.MaxInt64>>8 {
				return 0, fmt.Errorf("%w: %x is too large", ErrMap, b)
			}
			n = n<<8 | uint64(c)
		}
		return int64(n), nil
	}
	n, err := strconv.ParseUint(strings.Trim(string(b), " \x00"), 8, 63)
	if err != nil {
		return 0, fmt.Errorf("%w: %.30q is no number", ErrMap, b)
	}
	return int64(n), nil
}

// Extends reports whether a header is one that says more about the member behind
// it, a pax header or a long name, and how much follows it, in whole blocks.
func Extends(block [BlockSize]byte) (size int64, extends bool, err error) {
	switch block[156] {
	case tar.TypeXHeader, tar.TypeXGlobalHeader, tar.TypeGNULongName, tar.TypeGNULongLink, 'X': // Solaris's pax header
	default:
		return 0, false, nil
	}
	if size, err = field(block[124 : 124+fieldSize]); err != nil || size > math.MaxInt64-BlockSize {
		return 0, false, fmt.Errorf("%w: size of a header", ErrMap)
	}
	return (size + BlockSize - 1) / BlockSize * BlockSize, true, nil
}
