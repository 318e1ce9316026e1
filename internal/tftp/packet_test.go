package tftp

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// requests are what programs send, to the byte.
var requests = map[string]struct {
	packet string
	want   request
}{
	"curl 7.88": {"\x00\x01/shimx64.efi\x00octet\x00tsize\x000\x00blksize\x00512\x00timeout\x001\x00",
		request{name: "/shimx64.efi", mode: "octet", options: []option{{"tsize", "0"}, {"blksize", "512"}, {"timeout", "1"}}}},
	"atftp 0.8": {"\x00\x01a\x00octet\x00tsize\x000\x00blksize\x001428\x00windowsize\x008\x00",
		request{name: "a", mode: "octet", options: []option{{"tsize", "0"}, {"blksize", "1428"}, {"windowsize", "8"}}}},
	"tftp-hpa 5.2": {"\x00\x01a\x00netascii\x00", request{name: "a", mode: "netascii"}},
	"busybox 1.35": {"\x00\x01a\x00octet\x00blksize\x001428\x00tsize\x000\x00",
		request{name: "a", mode: "octet", options: []option{{"blksize", "1428"}, {"tsize", "0"}}}},
	"capital letters":          {"\x00\x01A\x00OCTET\x00TSize\x000\x00", request{name: "A", mode: "octet", options: []option{{"tsize", "0"}}}},
	"a value that is cut off":  {"\x00\x01a\x00octet\x00tsize\x00", request{name: "a", mode: "octet"}},
	"a value without its end":  {"\x00\x01a\x00octet\x00tsize\x000", request{name: "a", mode: "octet"}},
	"a write request":          {"\x00\x02a\x00octet\x00", request{write: true, name: "a", mode: "octet"}},
	"an option without a name": {"\x00\x01a\x00octet\x00\x00\x00", request{name: "a", mode: "octet", options: []option{{"", ""}}}},
}

func TestRequests(t *testing.T) {
	for who, c := range requests {
		got, err := parseRequest([]byte(c.packet))
		if err != nil || got.write != c.want.write || got.name != c.want.name || got.mode != c.want.mode || !slices.Equal(got.options, c.want.options) {
			t.Errorf("%s: %+v, %v", who, got, err)
		}
	}
	for _, packet := range []string{"", "\x00\x01", "\x00\x01\x00", "\x00\x01a", "\x00\x01a\x00", "\x00\x01a\x00octet", "\x00\x03a\x00octet\x00", "\x00\x00a\x00octet\x00", "\x01\x01a\x00octet\x00"} {
		if got, err := parseRequest([]byte(packet)); !errors.Is(err, errMalformed) {
			t.Errorf("%q: %+v, %v", packet, got, err)
		}
	}
}

func TestReplies(t *testing.T) {
	if r, err := parseReply([]byte("\x00\x04\xff\xfe")); err != nil || r.block != 0xfffe || r.fault != nil {
		t.Errorf("ACK: %+v, %v", r, err)
	}
	for packet, text := range map[string]string{"\x00\x05\x00\x08no\x00": "no", "\x00\x05\x00\x08no": "no", "\x00\x05\x00\x08": ""} {
		if r, err := parseReply([]byte(packet)); err != nil || r.fault == nil || *r.fault != (Error{8, text}) {
			t.Errorf("ERROR: %+v, %v", r.fault, err)
		}
	}
	for _, packet := range []string{"", "\x00\x04\x00", "\x00\x03\x00\x01x", "\x00\x06a\x00b\x00"} {
		if r, err := parseReply([]byte(packet)); !errors.Is(err, errMalformed) {
			t.Errorf("%q: %+v, %v", packet, r, err)
		}
	}
}

func TestErrorPackets(t *testing.T) {
	for want, err := range map[string]error{
		"\x00\x05\x00\x01file not found\x00":                       &Error{FileNotFound, "file not found"},
		"\x00\x05\x00\x00too slow\x00":                             errors.New("too \x00slow"),
		"\x00\x05\x00\x00" + strings.Repeat("x", maxText) + "\x00": errors.New(strings.Repeat("x", 5000)),
	} {
		if got := errorPacket(err); string(got) != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, c := range requests {
		f.Add([]byte(c.packet))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRequest(b)
		if err != nil {
			return
		}
		l := limits()
		agreed := l.negotiate(r.options, 1)
		if agreed.block < smallestBlock || agreed.block > testBlock || agreed.window < 1 || agreed.window > l.Window || agreed.timeout < l.Timeout || agreed.timeout > longestTimeout*l.Timeout {
			t.Errorf("%q gives %+v", b, agreed)
		}
		if answer := optionAck(agreed.agreed); len(answer) > len(b)+20 { // the size of a file, the only number of ours
			t.Errorf("%d bytes are answered with %d", len(b), len(answer))
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add([]byte("\x00\x04\x00\x01"))
	f.Add([]byte("\x00\x05\x00\x00User aborted the transfer\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseReply(b)
		if err == nil && r.fault != nil && len(r.fault.Text) > maxText {
			t.Errorf("a text of %d bytes", len(r.fault.Text))
		}
	})
}

func TestNetascii(t *testing.T) {
	const text = "one\ntwo\r\nthree\rfour\n"
	const want = "one\r\ntwo\r\x00\r\nthree\r\x00four\r\n"
	for size := 1; size < 2*len(want); size++ {
		got, err := io.ReadAll(&inParts{newNetascii(strings.NewReader(text)), size})
		if err != nil || string(got) != want {
			t.Fatalf("read %d bytes at a time: %q, %v", size, got, err)
		}
	}
	if got, err := io.ReadAll(newNetascii(bytes.NewReader(nil))); len(got) > 0 || err != nil {
		t.Errorf("of nothing: %q, %v", got, err)
	}
}

type inParts struct {
	io.Reader
	size int
}

func (p *inParts) Read(b []byte) (int, error) { return p.Reader.Read(b[:min(len(b), p.size)]) }
