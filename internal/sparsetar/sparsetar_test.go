package sparsetar

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRoundTrip writes files with holes and lets package tar read them.
func TestRoundTrip(t *testing.T) {
	const k = 1 << 10
	for name, c := range map[string]struct {
		size int64
		data []Segment
	}{
		"nothing but a hole":      {size: 1 << 20},
		"odd size":                {size: 1<<20 + 1, data: []Segment{{300 * k, 10}}},
		"data first":              {size: 1 << 20, data: []Segment{{0, 4 * k}}},
		"data last":               {size: 1<<20 + 77, data: []Segment{{1 << 20, 77}}},
		"small holes are filled":  {size: 1 << 20, data: []Segment{{0, 4 * k}, {8 * k, 4 * k}, {500 * k, 4 * k}}},
		"more than a block's map": {size: 64 << 20, data: every(64<<20, 512*k, 4*k)},
		"a name beyond ustar":     {size: 2 << 20, data: []Segment{{7, 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			want := make([]byte, c.size)
			r := rand.NewChaCha8([32]byte{})
			for _, s := range c.data {
				r.Read(want[s.Offset:s.End()])
			}
			segments := Worth(c.data, c.size)
			if segments == nil {
				t.Fatal("not worth it")
			}
			h := &tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat(name+"/", 20) + "f", Mode: 0o640, Uid: 1 << 30, Gid: 7, Size: c.size,
				ModTime: time.Unix(1e9, 0), PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y\n"}}
			var b bytes.Buffer
			if err := WriteHeader(&b, h, segments); err != nil {
				t.Fatal(err)
			}
			for _, s := range segments {
				b.Write(want[s.Offset:s.End()])
			}
			b.Write(make([]byte, -b.Len()&(BlockSize-1)+2*BlockSize))
			if int64(b.Len()) > c.size/2 {
				t.Errorf("%d bytes for a file of %d with holes", b.Len(), c.size)
			}
			tr := tar.NewReader(&b)
			got, err := tr.Next()
			if err != nil {
				t.Fatal(err)
			}
			if got.Name != h.Name || got.Mode != h.Mode || got.Uid != h.Uid || got.Gid != h.Gid || got.Size != h.Size || !got.ModTime.Equal(h.ModTime) || got.PAXRecords["SCHILY.xattr.user.x"] != "y\n" {
				t.Errorf("header %+v", got)
			}
			if data, err := io.ReadAll(tr); err != nil || !bytes.Equal(data, want) {
				t.Errorf("other bytes, %v", err)
			}
			if _, err := tr.Next(); err != io.EOF {
				t.Errorf("after it: %v", err)
			}
		})
	}
}

// every places length bytes at each multiple of step.
func every(size, step, length int64) (list []Segment) {
	for at := int64(0); at < size; at += step {
		list = append(list, Segment{at, length})
	}
	return list
}

func TestWorth(t *testing.T) {
	for _, c := range []struct {
		size int64
		data []Segment
	}{{0, nil}, {100, nil}, {minHole, nil}, {1 << 30, []Segment{{0, 1 << 30}}}, {1 << 20, every(1<<20, 4096, 1)}} {
		if got := Worth(c.data, c.size); got != nil {
			t.Errorf("%d bytes with %v: %v", c.size, c.data, got)
		}
	}
	got := Worth([]Segment{{1<<40 + 5, 5}}, 1<<41+1)
	if want := []Segment{{}, {1 << 40, 512}, {1 << 41, 1}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestDamagedMaps(t *testing.T) {
	const size = 1000
	for _, text := range []string{"1", "1,2,3", "1,x", "-1,2", "0,10,5,10", "0,1001", "999,2", "9223372036854775807,9223372036854775807", "0,99999999999999999999"} {
		if got, err := ParseText(text, size); err == nil {
			t.Errorf("%q: %v", text, got)
		}
		m := fmt.Sprintf("%d\n%s\n", (strings.Count(text, ",")+2)/2, strings.ReplaceAll(text, ",", "\n"))
		if got, _, err := ReadMap(bytes.NewReader(padded([]byte(m))), size); err == nil {
			t.Errorf("%q: %v", m, got)
		}
	}
	for _, m := range []string{"", "1\n", "x\n", "1048577\n", strings.Repeat("1", 600)} {
		if got, _, err := ReadMap(strings.NewReader(m), size); err == nil {
			t.Errorf("%q: %v", m, got)
		}
	}
	if got, err := ReadGNU(strings.NewReader("x"), size); err == nil {
		t.Errorf("a short header: %v", got)
	}
}

// FuzzMaps holds every reader to the invariant, whatever it is given.
func FuzzMaps(f *testing.F) {
	f.Add([]byte("0,512,4096,10"), int64(8192))
	f.Add(appendMap([]Segment{{0, 512}, {4096, 10}}), int64(8192))
	gnu := make([]byte, 2*BlockSize)
	copy(gnu[gnuEntries:], "00000000000\x0000000001000\x0000000010000\x0000000000012\x00")
	copy(gnu[gnuSize:], "00000020000\x00")
	gnu[gnuExtended] = 1
	copy(gnu[BlockSize:], "00000011000\x0000000000001\x00")
	f.Add(gnu, int64(8192))
	f.Fuzz(func(t *testing.T, data []byte, size int64) {
		hold := func(segments []Segment, err error) {
			if err != nil {
				return
			}
			if err := check(segments, size); err != nil {
				t.Error(err)
			}
			if worth := Worth(segments, size); worth != nil {
				if err := check(worth, size); err != nil {
					t.Error(err)
				}
			}
		}
		hold(ParseText(string(data), size))
		segments, length, err := ReadMap(bytes.NewReader(data), size)
		if hold(segments, err); err == nil && (length%BlockSize != 0 || length > int64(len(data))) {
			t.Errorf("%d bytes of map", length)
		}
		hold(ReadGNU(bytes.NewReader(data), size))
		var block [BlockSize]byte
		copy(block[:], data)
		if n, _, err := Extends(block); err == nil && n < 0 {
			t.Errorf("%d bytes follow", n)
		}
	})
}
