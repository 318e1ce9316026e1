package bootrecord

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"viver.lan/internal/manifest"
)

// How a record is encoded: magic, version, infohash, the number of ranges, and for
// each the distance of its start from the end of the one before (signed, from 0 for the
// first) and its count. Numbers are varints of package encoding/binary.
const (
	magic   = "viver boot record"
	version = 1
	// headerSize is what precedes the number of ranges.
	headerSize = len(magic) + 1 + len(manifest.Infohash{})
)

// Encode returns the record as bytes: at most MaxSize for one that Decode, a
// Recorder or Merge returned.
func (r Record) Encode() []byte {
	b := append([]byte(magic), version)
	b = append(b, r.Image[:]...)
	b = binary.AppendUvarint(b, uint64(len(r.Ranges)))
	var last int64
	for _, part := range r.Ranges {
		b = appendRange(b, part, last)
		last = part.end()
	}
	return b
}

// appendRange appends a range; last is the end of the one before.
func appendRange(b []byte, r Range, last int64) []byte {
	b = binary.AppendVarint(b, r.Start-last)
	return binary.AppendUvarint(b, uint64(r.Count))
}

// Decode reads a record of the root disk of an image, which has size bytes. It takes
// nothing but what Encode makes of a valid record.
func Decode(data []byte, image manifest.Infohash, size int64) (Record, error) {
	r, err := decode(data, image, size)
	if err != nil {
		return Record{}, fmt.Errorf("read boot record: %w", err)
	}
	return r, nil
}

func decode(data []byte, image manifest.Infohash, size int64) (Record, error) {
	if len(data) > MaxSize {
		return Record{}, fmt.Errorf("%d bytes, want at most %d", len(data), MaxSize)
	}
	if len(data) < headerSize || string(data[:len(magic)]) != magic {
		return Record{}, errors.New("it is none")
	}
	if v := data[len(magic)]; v != version {
		return Record{}, fmt.Errorf("version %d, want %d", v, version)
	}
	r := Record{Image: manifest.Infohash(data[len(magic)+1 : headerSize])}
	if r.Image != image {
		return Record{}, fmt.Errorf("it is of image %s, not of %s", r.Image, image)
	}
	var err error
	if r.Ranges, err = decodeRanges(data[headerSize:]); err != nil {
		return Record{}, err
	}
	if err := check(r.Ranges, size); err != nil {
		return Record{}, err
	}
	if !bytes.Equal(r.Encode(), data) {
		return Record{}, errors.New("a number is longer than it must be")
	}
	return r, nil
}

func decodeRanges(data []byte) ([]Range, error) {
	rest := numbers{data: data}
	count := rest.unsigned()
	if count > uint64(len(data)) { // each has two bytes at least
		return nil, fmt.Errorf("%d ranges in %d bytes", count, len(data))
	}
	ranges := make([]Range, count)
	var last int64
	for i := range ranges {
		// A sum or a count beyond an int64 becomes one that check refuses.
		ranges[i] = Range{Start: last + rest.signed(), Count: int64(rest.unsigned())}
		last = ranges[i].end()
	}
	if rest.short {
		return nil, errors.New("it is cut off")
	}
	if len(rest.data) > 0 {
		return nil, fmt.Errorf("%d bytes follow", len(rest.data))
	}
	return ranges, nil
}

// numbers reads varints one after the other. Once there is none, all further are 0.
type numbers struct {
	data  []byte
	short bool
}

func (n *numbers) signed() int64 {
	v, size := binary.Varint(n.data)
	n.skip(size)
	return v
}

func (n *numbers) unsigned() uint64 {
	v, size := binary.Uvarint(n.data)
	n.skip(size)
	return v
}

func (n *numbers) skip(size int) {
	if size <= 0 {
		n.data, n.short = nil, true
		return
	}
	n.data = n.data[size:]
}
