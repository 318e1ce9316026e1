package sparsetar

import (
	"archive/tar"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
)

// minHole is the shortest hole that is worth a segment, in bytes: the block of a
// squashfs, below which a hole is stored as zeros all the same.
const minHole = 128 << 10

// Worth returns the map by which a file of that size is written: segments that
// begin and end at block boundaries, or nil when there is no hole to speak of.
//
// The last segment always reaches the end of the file and is never the first:
// mksquashfs reads past its map otherwise (tar.c, sparse_reader).
func Worth(segments []Segment, size int64) []Segment {
	if size < minHole {
		return nil
	}
	tail := (size - 1) / BlockSize * BlockSize
	list := []Segment{{}}
	for _, s := range append(slices.Clone(segments), Segment{tail, size - tail}) {
		if s.Length == 0 {
			continue
		}
		from := s.Offset / BlockSize * BlockSize
		to := min((s.End()+BlockSize-1)/BlockSize*BlockSize, size)
		last := &list[len(list)-1]
		if len(list) > 1 && from-last.End() < minHole {
			last.Length = max(to, last.End()) - last.Offset
			continue
		}
		list = append(list, Segment{from, to - from})
	}
	if size-Bytes(list) < minHole {
		return nil
	}
	return list
}

// WriteHeader writes what comes before the data of a regular file with holes:
// a pax header, the header and the map. h has the file's size; its pax records
// and the fields of a regular file are written, names of owners are not. What
// follows is the segments' data, padded to BlockSize.
func WriteHeader(w io.Writer, h *tar.Header, segments []Segment) error {
	if err := check(segments, h.Size); err != nil {
		return fmt.Errorf("/%s: %w", h.Name, err)
	}
	text := appendMap(segments)
	size := int64(len(text)) + Bytes(segments)
	records := maps.Clone(h.PAXRecords)
	if records == nil {
		records = make(map[string]string)
	}
	records["GNU.sparse.major"], records["GNU.sparse.minor"] = "1", "0"
	records["GNU.sparse.name"] = h.Name
	records["GNU.sparse.realsize"] = strconv.FormatInt(h.Size, 10)
	b := block{typeflag: tar.TypeReg, name: "sparse", mode: h.Mode & 0o7777, uid: int64(h.Uid), gid: int64(h.Gid), size: size, mtime: max(h.ModTime.Unix(), 0)}
	for _, f := range []struct {
		name   string
		value  *int64
		digits int
	}{{"uid", &b.uid, 7}, {"gid", &b.gid, 7}, {"size", &b.size, 11}} {
		if *f.value >= 1<<(3*f.digits) {
			records[f.name] = strconv.FormatInt(*f.value, 10)
			*f.value = 0
		}
	}
	pax := appendRecords(records)
	x := block{typeflag: tar.TypeXHeader, name: "pax", mode: 0o644, size: int64(len(pax))}
	for _, part := range [][]byte{x.bytes(), padded(pax), b.bytes(), text} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

func appendMap(segments []Segment) []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, len(segments))
	for _, s := range segments {
		fmt.Fprintf(&b, "%d\n%d\n", s.Offset, s.Length)
	}
	return padded(b.Bytes())
}

func padded(b []byte) []byte {
	return append(b, make([]byte, -len(b)&(BlockSize-1))...)
}

// appendRecords writes pax records: each begins with its own length.
func appendRecords(records map[string]string) []byte {
	var b []byte
	for _, key := range slices.Sorted(maps.Keys(records)) {
		rest := len(" =\n") + len(key) + len(records[key])
		length := rest + len(strconv.Itoa(rest))
		length = rest + len(strconv.Itoa(length))
		b = fmt.Appendf(b, "%d %s=%s\n", length, key, records[key])
	}
	return b
}

// block is a header in the ustar format (POSIX.1-2017, pax, "ustar Interchange
// Format").
type block struct {
	typeflag                    byte
	name                        string
	mode, uid, gid, size, mtime int64
}

func (h block) bytes() []byte {
	b := make([]byte, BlockSize)
	octal := func(at, digits int, n int64) { copy(b[at:], fmt.Sprintf("%0*o", digits, n)) }
	copy(b, h.name)
	octal(100, 7, h.mode)
	octal(108, 7, h.uid)
	octal(116, 7, h.gid)
	octal(124, 11, h.size)
	octal(136, 11, h.mtime)
	b[156] = cmp.Or(h.typeflag, tar.TypeReg)
	copy(b[257:], "ustar\x0000")
	copy(b[148:], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}
