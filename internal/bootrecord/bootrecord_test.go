package bootrecord

import (
	"bytes"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/manifest"
)

var image = manifest.Infohash{1, 2, 3}

// record is one of the given ranges, each a start and a count.
func record(numbers ...int64) Record {
	r := Record{Image: image}
	for pair := range slices.Chunk(numbers, 2) {
		r.Ranges = append(r.Ranges, Range{pair[0], pair[1]})
	}
	return r
}

func same(a, b Record) bool { return a.Image == b.Image && slices.Equal(a.Ranges, b.Ranges) }

func TestRecorderKeepsTheOrderOfFirstReads(t *testing.T) {
	for _, c := range []struct {
		name  string
		reads [][2]int64 // offset and length in bytes
		want  Record
	}{
		{"nothing", nil, record()},
		{"less than a unit", [][2]int64{{5000, 10}}, record(1, 1)},
		{"across a boundary", [][2]int64{{4095, 2}}, record(0, 2)},
		{"one after the other is one range", [][2]int64{{0, 4096}, {4096, 8192}}, record(0, 3)},
		{"backwards is two", [][2]int64{{4096, 4096}, {0, 4096}}, record(1, 1, 0, 1)},
		{"again is nothing", [][2]int64{{0, 8192}, {4096, 4096}, {0, 1}}, record(0, 2)},
		{"only what is new", [][2]int64{{8192, 4096}, {0, 20480}}, record(2, 1, 0, 2, 3, 2)},
		{"beyond the end", [][2]int64{{36864, 40960}, {1 << 40, 1}, {0, math.MaxInt64}}, record(9, 1, 0, 9)},
		{"no read at all", [][2]int64{{-1, 4096}, {0, 0}, {0, -5}, {math.MaxInt64, math.MaxInt64}}, record()},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := NewRecorder(image, 9*Unit+1)
			for _, read := range c.reads {
				r.Read(read[0], read[1])
			}
			if got := r.Record(); !same(got, c.want) || r.full {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestRecorderStopsAtItsBounds: a disk that is read in the worst order, and one that is
// read whole.
func TestRecorderStopsAtItsBounds(t *testing.T) {
	const size = 128 << 30
	scattered := NewRecorder(image, size)
	for i := range int64(1 << 16) {
		scattered.Read((i*7919*4001)%(size/Unit)*Unit, Unit)
	}
	if n := len(scattered.Record().Encode()); !scattered.full || n > MaxSize || n < MaxSize-20 {
		t.Errorf("full %v with %d bytes, want nearly %d", scattered.full, n, MaxSize)
	}
	whole := NewRecorder(image, size)
	whole.Read(0, size)
	if n := whole.Record().Bytes(); !whole.full || n != MaxRead {
		t.Errorf("full %v with %d bytes of the disk, want %d", whole.full, n, MaxRead)
	}
	for _, r := range []*Recorder{scattered, whole} {
		before := r.Record()
		r.Read(size-Unit, Unit)
		if !same(r.Record(), before) {
			t.Error("a full record grew")
		}
		if got, err := Decode(before.Encode(), image, size); err != nil || !same(got, before) {
			t.Errorf("does not come back: %v", err)
		}
	}
}

// TestEncodedRecord holds the bytes that other versions of VIVER read.
func TestEncodedRecord(t *testing.T) {
	want := hex.EncodeToString([]byte("viver boot record\x01")) + "0102030000000000000000000000000000000000" + "03" + "0a02" + "8801c801" + "9503" + "01"
	r := record(5, 2, 75, 200, 72, 1)
	if got := hex.EncodeToString(r.Encode()); got != want {
		t.Errorf("encoded\n%s, want\n%s", got, want)
	}
	if got, err := Decode(r.Encode(), image, 275*Unit); err != nil || !same(got, r) {
		t.Errorf("decoded %v, %v", got, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	const disk = 100*Unit - 1
	good := record(5, 2, 0, 1).Encode()
	long := bytes.Clone(good)
	long = append(long[:len(long)-1], 0x81, 0x00) // 1 in two bytes
	for _, c := range []struct {
		name, want string
		data       []byte
	}{
		{"nothing", "it is none", nil},
		{"text", "it is none", []byte(strings.Repeat("viver boot recorD", 4))},
		{"a later version", "version 2", slices.Concat(good[:len(magic)], []byte{2}, good[len(magic)+1:])},
		{"another image", "it is of image 09", Record{Image: manifest.Infohash{9}}.Encode()},
		{"huge", "want at most", slices.Concat(good, make([]byte, MaxSize))},
		{"no ranges", "cut off", good[:headerSize]},
		{"cut off", "cut off", good[:len(good)-1]},
		{"a byte more", "1 bytes follow", append(bytes.Clone(good), 0)},
		{"a long number", "longer than it must be", long},
		{"more ranges than bytes", "ranges in", slices.Concat(good[:headerSize], []byte{0xff, 0xff, 0x03, 0, 1})},
		{"an empty range", "range 0 is empty", record(5, 0).Encode()},
		{"a count beyond an int64", "range 0 is empty", record(5, -1).Encode()},
		{"before the disk", "beyond the disk", record(-1, 2).Encode()},
		{"behind the disk", "beyond the disk", record(100, 1).Encode()},
		{"across its end", "beyond the disk", record(99, 2).Encode()},
		{"a sum beyond an int64", "beyond the disk", record(1, math.MaxInt64).Encode()},
		{"twice", "unit 3 of the disk is there twice", record(3, 4, 10, 1, 2, 2).Encode()},
		{"not merged", "range 1 continues", record(3, 4, 7, 1).Encode()},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Decode(c.data, image, disk)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v; want an error with %q", got, err, c.want)
			}
		})
	}
	if _, err := Decode(record(0, MaxRead/Unit+1).Encode(), image, 2*MaxRead); err == nil {
		t.Error("took a record of more than MaxRead")
	}
}

func TestPieces(t *testing.T) {
	r := record(40, 2, 0, 1, 63, 2, 31, 3)
	for _, c := range []struct {
		length, offset int64
		want           []int
	}{
		{128 << 10, 0, []int{1, 0, 2}},
		{128 << 10, 128<<10 - 1, []int{2, 0, 1, 3}},
		{16 << 10, 0, []int{10, 0, 15, 16, 7, 8}},
		{16 << 20, 5, []int{0}},
	} {
		if got := r.Pieces(c.length, c.offset); !slices.Equal(got, c.want) {
			t.Errorf("in pieces of %d, root at %d: %v, want %v", c.length, c.offset, got, c.want)
		}
	}
}

func TestMerge(t *testing.T) {
	const b = block / Unit
	first, second := record(0, 1, 5*b, 1, 9*b, 1), record(3, 1, 7*b+2, b)
	other := Record{Image: manifest.Infohash{9}, Ranges: []Range{{100 * b, 1}}}
	for _, c := range []struct {
		name    string
		records []Record
		want    Record
	}{
		{"none", nil, Record{}},
		{"one, in blocks to the last unit", []Record{first}, record(0, b, 5*b, b, 9*b, 1)},
		{"round robin", []Record{first, second}, record(0, b, 7*b, b, 5*b, b, 8*b, b+1)},
		{"round robin, the other way", []Record{second, first}, record(0, b, 5*b, b, 7*b, b, 9*b, 1, 8*b, b)},
		{"the same twice", []Record{first, first}, record(0, b, 5*b, b, 9*b, 1)},
		{"of another image", []Record{first, other}, record(0, b, 5*b, b, 9*b, 1)},
		{"an empty one", []Record{record(), first}, record(0, b, 5*b, b, 9*b, 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Merge(c.records...); !same(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestALiarPushesNothingOut merges one record that lies, in ways that take the most
// room, with three that were made by machines that read nearly the same.
func TestALiarPushesNothingOut(t *testing.T) {
	const size = 4 << 30
	rng := rand.New(rand.NewPCG(1, 2))
	honest := make([]Record, 3)
	for i := range honest {
		r := NewRecorder(image, size)
		for n := range int64(800) {
			if rng.IntN(10) > 0 { // each lacks a tenth
				r.Read((n*n*37)%(400<<20/Unit)*Unit, 20<<10)
			}
		}
		honest[i] = r.Record()
	}
	scattered, whole := NewRecorder(image, size), NewRecorder(image, size)
	for n := range int64(1 << 15) {
		scattered.Read(size-(n+1)*block+n%30*Unit, Unit)
	}
	whole.Read(size-MaxRead, MaxRead)
	want := Merge(honest...).Pieces(block, 0)
	for name, liar := range map[string]Record{"scattered": scattered.Record(), "whole": whole.Record()} {
		for place := range 4 {
			merged := Merge(slices.Insert(slices.Clone(honest), place, liar)...)
			if n := len(merged.Encode()); n > MaxSize {
				t.Errorf("%s: %d bytes", name, n)
			}
			lies, truths := 0, []int{}
			for i, b := range merged.Pieces(block, 0) {
				if int64(b)*block >= 400<<20+block {
					if lies++; lies > i/4+1 && len(truths) < len(want) {
						t.Fatalf("%s at place %d: %d of the first %d blocks are lies", name, place, lies, i+1)
					}
				} else {
					truths = append(truths, b)
				}
			}
			if lies == 0 || !slices.Equal(truths, want) {
				t.Errorf("%s at place %d: %d lies, and %d of %d honest blocks, or in another order", name, place, lies, len(truths), len(want))
			}
		}
	}
}

// FuzzDecode takes any bytes: what is a record is in its bounds, has one encoding, and
// can be merged and cut into pieces.
func FuzzDecode(f *testing.F) {
	const disk = 3<<30 + 5
	f.Add(record().Encode())
	f.Add(record(5, 2, 0, 1, 700, 300).Encode())
	f.Add(record(0, MaxRead/Unit).Encode())
	f.Add(record(3, 4, 10, 1, 2, 2).Encode())
	f.Add(record(1, math.MaxInt64, -7, 1).Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data, image, disk)
		if err != nil {
			return
		}
		if !bytes.Equal(r.Encode(), data) {
			t.Error("another encoding of the same record")
		}
		again := NewRecorder(image, disk)
		for _, part := range r.Ranges {
			again.Read(part.Start*Unit, part.Count*Unit)
		}
		if got := again.Record(); !same(got, r) && !again.full {
			t.Errorf("recorded again: %v, want %v", got, r)
		}
		merged := Merge(r, record(1, 1, 5000, 3))
		if _, err := Decode(merged.Encode(), image, disk); err != nil {
			t.Errorf("merged: %v", err)
		}
		for _, p := range merged.Pieces(block, 7) {
			if p < 0 || int64(p)*block > disk+7 {
				t.Errorf("piece %d", p)
			}
		}
	})
}
