package blockdev

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
)

func serialize(attrs []*nl.RtAttr) (b []byte) {
	for _, a := range attrs {
		b = append(b, a.Serialize()...)
	}
	return b
}

func TestRequestsOnTheWire(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the expected bytes are little-endian")
	}
	connect := connectRequest{
		index: 2, size: 0x0102030405060800, blockSize: 4096, timeout: 9500 * time.Millisecond,
		deadTimeout: time.Hour, identity: "cafe", sockets: []int{7, 9},
	}
	sockets := []byte{
		28, 0, 7, 0, // NBD_ATTR_SOCKETS
		12, 0, 1, 0, 8, 0, 1, 0, 7, 0, 0, 0,
		12, 0, 1, 0, 8, 0, 1, 0, 9, 0, 0, 0,
	}
	want := append([]byte{
		8, 0, 1, 0, 2, 0, 0, 0, // NBD_ATTR_INDEX
		12, 0, 2, 0, 0, 8, 6, 5, 4, 3, 2, 1, // NBD_ATTR_SIZE_BYTES
		12, 0, 3, 0, 0, 16, 0, 0, 0, 0, 0, 0, // NBD_ATTR_BLOCK_SIZE_BYTES
		12, 0, 4, 0, 10, 0, 0, 0, 0, 0, 0, 0, // NBD_ATTR_TIMEOUT, rounded up
		12, 0, 5, 0, 3, 1, 0, 0, 0, 0, 0, 0, // NBD_ATTR_SERVER_FLAGS
		12, 0, 8, 0, 0x10, 0x0e, 0, 0, 0, 0, 0, 0, // NBD_ATTR_DEAD_CONN_TIMEOUT
		9, 0, 10, 0, 'c', 'a', 'f', 'e', 0, 0, 0, 0, // NBD_ATTR_BACKEND_IDENTIFIER
	}, sockets...)
	if got := serialize(connect.attributes()); !bytes.Equal(got, want) {
		t.Errorf("connect is\n% x, want\n% x", got, want)
	}
	reconfigure := reconfigureRequest{index: 2, sockets: []int{7, 9}}
	want = append([]byte{8, 0, 1, 0, 2, 0, 0, 0}, sockets...)
	if got := serialize(reconfigure.attributes()); !bytes.Equal(got, want) {
		t.Errorf("reconfigure is\n% x, want\n% x", got, want)
	}
}

func TestParseStatus(t *testing.T) {
	header := []byte{5, 1, 0, 0}
	item := func(index, connected byte) []byte {
		return []byte{20, 0, 1, 0, 8, 0, 1, 0, index, 0, 0, 0, 5, 0, 2, 0, connected, 0, 0, 0}
	}
	list := func(items ...[]byte) []byte {
		all := bytes.Join(items, nil)
		return append(append(header[:4:4], byte(4+len(all)), 0, 9, 0), all...)
	}
	for _, c := range []struct {
		name  string
		reply []byte
		index int
		want  bool
		bad   bool
	}{
		{"connected", list(item(3, 1)), 3, true, false},
		{"free", list(item(3, 0)), 3, false, false},
		{"second of a list", list(item(0, 0), item(1, 1)), 1, true, false},
		{"first of a list", list(item(0, 0), item(1, 1)), 0, false, false},
		{"not listed", list(item(0, 1)), 1, false, false},
		{"empty list", list(), 0, false, false},
		{"no list", header, 0, false, false},
		{"no header", header[:2], 0, false, true},
		{"cut", list(item(3, 1))[:15], 3, false, true},
	} {
		got, err := parseStatus(c.reply, c.index)
		if got != c.want || (err != nil) != c.bad {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}

func TestBlockSize(t *testing.T) {
	for size, want := range map[int64]int64{1 << 30: 4096, 4096: 4096, 4096 + 2048: 2048, 1024: 1024, 512: 512, 3 * 512: 512} {
		if got := blockSize(size); got != want {
			t.Errorf("block size for %d bytes is %d, want %d", size, got, want)
		}
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte{5, 1, 0, 0, 24, 0, 9, 0, 20, 0, 1, 0, 8, 0, 1, 0, 3, 0, 0, 0, 5, 0, 2, 0, 1, 0, 0, 0}, 3)
	f.Add([]byte{5, 1, 0, 0, 4, 0, 9, 0}, 0)
	f.Add([]byte{5, 1, 0, 0, 6, 0, 9, 0, 1, 2}, 0) // not padded
	f.Fuzz(func(t *testing.T, reply []byte, index int) {
		if up, err := parseStatus(reply, index); up && err != nil {
			t.Errorf("connected, and yet %v", err)
		}
	})
}
