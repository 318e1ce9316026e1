// Package bootrecord is about what a machine reads of its root disk until it is up:
// the ranges, in the order in which they were read first. The next machine fetches
// along such a record just ahead of its reads, and the image tool lays the files
// that it touches first.
//
// A record is advice and comes from anybody: it decides when bytes are fetched, never
// which bytes a reader gets. The invariant: a Record of this package has no range
// twice, no range beyond the disk that it was made or decoded for, and fits
// MaxSize bytes and MaxRead bytes of disk.
//
// It opens no sockets and no files, and it does not know when a machine is up.
package bootrecord

import (
	"cmp"
	"fmt"
	"slices"

	"viver.lan/internal/manifest"
)

// Unit is the size in bytes of what ranges count: a page of the kernel, the least
// that it reads of a disk.
const Unit = 4096

// Bounds of a record.
const (
	// MaxSize bounds an encoded record in bytes. A Debian boots with some hundred
	// ranges of three to five bytes each; this is room for ten times as many, and
	// still small enough for every node to have those of several others.
	MaxSize = 16 << 10
	// MaxRead bounds what a record's ranges are together, in bytes of the disk.
	// Systems with a desktop read half of that. It is the most that a record that
	// lies can make a machine fetch for nothing.
	MaxRead = 512 << 20
)

// Range is a part of the root disk, in units.
type Range struct {
	Start, Count int64
}

func (r Range) end() int64 { return r.Start + r.Count }

// Record says what was read of the root disk of one image.
type Record struct {
	// Image whose root disk it is.
	Image manifest.Infohash
	// Ranges in the order in which they were first read. They do not overlap.
	Ranges []Range
}

// Bytes returns how many bytes of the disk the record's units are.
func (r Record) Bytes() int64 {
	var units int64
	for _, part := range r.Ranges {
		units += part.Count
	}
	return units * Unit
}

// Pieces lists the pieces of the payload that have a part of the record, each once, in
// the record's order. The root disk begins at byte rootOffset of the payload.
func (r Record) Pieces(pieceLength, rootOffset int64) []int {
	var pieces []int
	listed := make(map[int]bool)
	for _, part := range r.Ranges {
		first := (rootOffset + part.Start*Unit) / pieceLength
		last := (rootOffset + part.end()*Unit - 1) / pieceLength
		for p := int(first); p <= int(last); p++ {
			if !listed[p] {
				listed[p] = true
				pieces = append(pieces, p)
			}
		}
	}
	return pieces
}

// units returns how many units a disk of size bytes has.
func units(size int64) int64 { return size/Unit + min(size%Unit, 1) }

// check returns an error if the ranges are not those of a record of a disk of size bytes.
func check(ranges []Range, size int64) error {
	var read, last int64
	for i, r := range ranges {
		switch {
		case r.Count < 1:
			return fmt.Errorf("range %d is empty", i)
		case r.Start < 0 || r.Start >= units(size) || r.Count > units(size)-r.Start:
			return fmt.Errorf("range %d ends beyond the disk of %d bytes", i, size)
		case i > 0 && r.Start == last:
			return fmt.Errorf("range %d continues the one before it", i)
		case r.Count > MaxRead/Unit-read:
			return fmt.Errorf("more than %d MiB of the disk", MaxRead>>20)
		}
		read, last = read+r.Count, r.end()
	}
	return checkOverlap(ranges)
}

func checkOverlap(ranges []Range) error {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b Range) int { return cmp.Compare(a.Start, b.Start) })
	for i := 1; i < len(sorted); i++ {
		if sorted[i].Start < sorted[i-1].end() {
			return fmt.Errorf("unit %d of the disk is there twice", sorted[i].Start)
		}
	}
	return nil
}
