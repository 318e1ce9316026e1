package bootrecord

import (
	"encoding/binary"

	"viver.lan/internal/manifest"
)

// Recorder makes a record of reads. It is not safe for concurrent use.
type Recorder struct {
	record Record
	units  int64 // of the disk
	// read has a bit for each unit that is in the record.
	read []uint64
	left int64 // units until MaxRead
	// size is the encoded length of all ranges but the last.
	size int
	full bool // the bounds are reached
}

// NewRecorder returns a recorder for the root disk of an image, which has size bytes.
func NewRecorder(image manifest.Infohash, size int64) *Recorder {
	n := units(size)
	return &Recorder{
		record: Record{Image: image}, units: n, read: make([]uint64, (n+63)/64), left: MaxRead / Unit,
		size: headerSize + binary.MaxVarintLen16,
	}
}

// Read notes that length bytes at offset were read; what lies outside of the disk is
// ignored. A record that has reached its bounds stays as it is: a boot's first reads
// are those that somebody waits for.
func (r *Recorder) Read(offset, length int64) {
	if offset < 0 || length <= 0 {
		return
	}
	first, end := offset/Unit, r.units
	if offset <= r.units*Unit-length {
		end = units(offset + length)
	}
	for u := first; u < end && !r.full; u++ {
		r.add(u)
	}
}

// Record returns what was read so far.
func (r *Recorder) Record() Record {
	return Record{Image: r.record.Image, Ranges: append([]Range(nil), r.record.Ranges...)}
}

// has reports whether a unit is in the record.
func (r *Recorder) has(u int64) bool { return r.read[u/64]&(1<<(u%64)) != 0 }

// add adds a unit, unless it is there or there is no room.
func (r *Recorder) add(u int64) {
	if r.full || r.has(u) {
		return
	}
	if !r.extend(u) && !r.begin(u) {
		r.full = true
		return
	}
	r.read[u/64] |= 1 << (u % 64)
	r.left--
	r.full = r.left == 0
}

// extend adds a unit to the last range if it continues that.
func (r *Recorder) extend(u int64) bool {
	n := len(r.record.Ranges)
	if n == 0 || r.record.Ranges[n-1].end() != u {
		return false
	}
	r.record.Ranges[n-1].Count++
	return true
}

// maxCountSize is the longest encoded count of a range, which MaxRead bounds.
const maxCountSize = 3

// begin adds a range of one unit if there is room for that, whatever its count will be.
func (r *Recorder) begin(u int64) bool {
	size, last := r.size, int64(0)
	if n := len(r.record.Ranges); n > 0 {
		size += r.lastSize()
		last = r.record.Ranges[n-1].end()
	}
	if size+len(binary.AppendVarint(nil, u-last))+maxCountSize > MaxSize {
		return false
	}
	r.size = size
	r.record.Ranges = append(r.record.Ranges, Range{Start: u, Count: 1})
	return true
}

// lastSize returns the encoded length of the last range.
func (r *Recorder) lastSize() int {
	ranges := r.record.Ranges
	last := int64(0)
	if n := len(ranges); n > 1 {
		last = ranges[n-2].end()
	}
	var buffer [2 * binary.MaxVarintLen64]byte
	return len(appendRange(buffer[:0], ranges[len(ranges)-1], last))
}
