package nbd

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// wire encodes a request as a client would.
func wire(r request) []byte {
	return bigEndian(uint32(0x25609513), r.flags, r.command, r.cookie, r.offset, r.length)
}

func TestJudge(t *testing.T) {
	const size = 1 << 20
	for _, c := range []struct {
		name string
		r    request
		do   action
		e    errno
	}{
		{"first block", request{length: 4096}, read, success},
		{"last byte", request{offset: size - 1, length: 1}, read, success},
		{"whole volume", request{length: size}, read, success},
		{"one byte too far", request{offset: size - 1, length: 2}, answer, einval},
		{"behind the end", request{offset: size, length: 1}, answer, einval},
		{"offset that is negative as int64", request{offset: 1 << 63, length: 1}, answer, einval},
		{"end overflows", request{offset: ^uint64(0), length: 2}, answer, einval},
		{"nothing", request{length: 0}, answer, einval},
		{"longer than any read", request{length: MaxRequestLength + 1}, answer, einval},
		{"longest length", request{length: ^uint32(0)}, answer, einval},
		{"read with a flag nobody offered", request{flags: 1, length: 1}, answer, einval},
		{"write", request{command: 1, length: 10}, discard, eperm},
		{"write behind the end", request{command: 1, offset: size, length: 10}, discard, eperm},
		{"write too long to skip", request{command: 1, length: MaxRequestLength + 1}, hangUp, eperm},
		{"disconnect", request{command: 2}, disconnect, success},
		{"flush", request{command: 3}, answer, success},
		{"trim", request{command: 4, length: 4096}, answer, eperm},
		{"cache", request{command: 5, length: 4096}, answer, einval},
		{"write zeroes", request{command: 6, length: 4096}, answer, eperm},
		{"block status", request{command: 7, length: 4096}, answer, einval},
		{"resize", request{command: 8}, answer, einval},
		{"unknown", request{command: 0xffff}, answer, einval},
	} {
		if do, e := judge(c.r, size); do != c.do || e != c.e {
			t.Errorf("%s: action %d errno %d, want %d and %d", c.name, do, e, c.do, c.e)
		}
	}
}

func TestJudgeLongVolume(t *testing.T) {
	// A read longer than the limit is refused although the volume holds it.
	if do, e := judge(request{length: MaxRequestLength + 1}, 1<<40); do != answer || e != einval {
		t.Errorf("action %d errno %d, want %d and %d", do, e, answer, einval)
	}
	if do, _ := judge(request{offset: 1<<40 - MaxRequestLength, length: MaxRequestLength}, 1<<40); do != read {
		t.Errorf("the longest read at the end of the volume was refused")
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(wire(request{length: 4096}), int64(1<<20))
	f.Add(wire(request{command: 1, offset: 1 << 63, length: ^uint32(0)}), int64(0))
	f.Add(wire(request{command: 2}), int64(1))
	f.Add(make([]byte, requestSize), int64(4096))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if len(b) != requestSize || size < 0 {
			return
		}
		r, err := parseRequest([requestSize]byte(b))
		if err != nil {
			return
		}
		if !bytes.Equal(wire(r), b) {
			t.Fatalf("%x decoded as %+v", b, r)
		}
		if do, _ := judge(r, size); do == read {
			end := r.offset + uint64(r.length)
			if end < r.offset || end > uint64(size) || r.length == 0 || r.length > MaxRequestLength {
				t.Fatalf("accepted %+v of a volume of %d bytes", r, size)
			}
		}
	})
}

func TestBuffers(t *testing.T) {
	var pool buffers
	for _, length := range []int{1, 4095, 4096, 4097, 1 << 20, 1<<20 + 1, MaxRequestLength} {
		buf := pool.get(length)
		if len(*buf) != headroom+length {
			t.Errorf("asked for %d bytes, got %d", length, len(*buf)-headroom)
		}
		if capacity := cap(*buf) - headroom; length <= 1<<20 && capacity > max(4096, 2*length) {
			t.Errorf("a buffer of %d bytes takes %d", length, capacity)
		}
		pool.put(buf)
		if again := pool.get(length); len(*again) != headroom+length {
			t.Errorf("asked again for %d bytes, got %d", length, len(*again)-headroom)
		}
	}
}

func TestPutReply(t *testing.T) {
	var b [replySize]byte
	putReply(b[:], 0x0102030405060708, eio)
	want := []byte{0x67, 0x44, 0x66, 0x98, 0, 0, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8}
	if !bytes.Equal(b[:], want) {
		t.Errorf("reply is % x, want % x", b, want)
	}
	if binary.BigEndian.Uint32(b[4:]) != 5 {
		t.Error("EIO is not 5")
	}
}
