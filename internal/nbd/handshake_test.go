package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// script is a client that has said everything before it listens.
type script struct {
	io.Reader
	said bytes.Buffer // by the server
}

func (s *script) Write(p []byte) (int, error) { return s.said.Write(p) }

func option(id uint32, data []byte) []byte {
	return bigEndian(uint64(0x49484156454F5054), id, uint32(len(data)), data)
}

func infoData(name string, infos ...uint16) []byte {
	return bigEndian(uint32(len(name)), []byte(name), uint16(len(infos)), infos)
}

func hello(flags uint32, options ...[]byte) []byte {
	return append(bigEndian(flags), bytes.Join(options, nil)...)
}

var testExports = []Export{
	{Name: "root", Description: "the root disk", Backend: volume{size: 1 << 20}, PreferredBlock: 128 << 10},
	{Name: "other", Backend: volume{size: 12345}},
}

// kinds takes the server's side of a handshake apart: the greeting is skipped,
// each reply is its kind.
func kinds(t *testing.T, said []byte) (list []uint32, data [][]byte) {
	t.Helper()
	for said = said[18:]; len(said) > 0; {
		if len(said) < 20 || binary.BigEndian.Uint64(said) != 0x3e889045565a9 {
			t.Fatalf("not a reply: % x", said)
		}
		length := binary.BigEndian.Uint32(said[16:])
		list = append(list, binary.BigEndian.Uint32(said[12:]))
		data = append(data, said[20:20+length])
		said = said[20+length:]
	}
	return list, data
}

func TestHandshake(t *testing.T) {
	const (
		ack, server, info            = 1, 2, 3
		unsup, invalid, unknown, big = 1 | 1<<31, 3 | 1<<31, 6 | 1<<31, 9 | 1<<31
	)
	for _, c := range []struct {
		name   string
		client []byte
		kinds  []uint32
		export string // "" when the handshake must fail
		err    string
	}{
		{"go", hello(3, option(7, infoData("root"))), []uint32{info, info, ack}, "root", ""},
		{"go with everything", hello(3, option(7, infoData("other", 0, 1, 2, 3))), []uint32{info, info, info, info, ack}, "other", ""},
		{"the empty name is the first", hello(1, option(7, infoData(""))), []uint32{info, info, ack}, "root", ""},
		{"info, then go", hello(3, option(6, infoData("other")), option(7, infoData("root"))), []uint32{info, info, ack, info, info, ack}, "root", ""},
		{"TLS and contexts are refused", hello(3, option(5, nil), option(10, []byte("x")), option(7, infoData(""))), []uint32{unsup, unsup, info, info, ack}, "root", ""},
		{"structured replies with data", hello(3, option(8, []byte("x")), option(2, nil)), []uint32{invalid, ack}, "", "client ended"},
		{"unknown name, then a known one", hello(3, option(7, infoData("nope")), option(7, infoData("root"))), []uint32{unknown, info, info, ack}, "root", ""},
		{"list", hello(3, option(3, nil), option(2, nil)), []uint32{server, server, ack, ack}, "", "client ended"},
		{"list with data", hello(3, option(3, []byte("x")), option(2, nil)), []uint32{invalid, ack}, "", "client ended"},
		{"malformed go", hello(3, option(7, []byte{0, 0, 0, 9, 'x'}), option(2, nil)), []uint32{invalid, ack}, "", "client ended"},
		{"data too long is skipped", hello(3, option(7, make([]byte, 60000)), option(2, nil)), []uint32{big, ack}, "", "client ended"},
		{"data far too long", hello(3, bigEndian(uint64(0x49484156454F5054), uint32(7), ^uint32(0))), nil, "", "at most"},
		{"closes without abort", hello(3), nil, "", "client ended"},
		{"half an option", hello(3, option(7, infoData("root"))[:10]), nil, "", "unexpected EOF"},
		{"half an option's data", hello(3, option(7, infoData("root"))[:18]), nil, "", "unexpected EOF"},
		{"wrong magic", hello(3, make([]byte, 16)), nil, "", "where an option begins"},
		{"unknown client flags", hello(1<<5 | 1), nil, "", "client flags"},
		{"not fixed newstyle", hello(0, option(3, nil)), nil, "", "fixed newstyle"},
		{"never an end of options", hello(3, bytes.Repeat(option(6, infoData("nope")), 100)), slices.Repeat([]uint32{unknown}, maxOptions), "", "more than"},
	} {
		s := &script{Reader: bytes.NewReader(c.client)}
		e, _, err := Handshake(s, testExports)
		if c.export != "" && (err != nil || e.Name != c.export) {
			t.Errorf("%s: export %v, error %v", c.name, e, err)
		}
		if c.export == "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.err)
		}
		if got, _ := kinds(t, s.said.Bytes()); !reflect.DeepEqual(got, c.kinds) {
			t.Errorf("%s: replies %#x, want %#x", c.name, got, c.kinds)
		}
	}
}

func TestHandshakeStructured(t *testing.T) {
	for _, c := range []struct {
		client []byte
		want   bool
	}{
		{hello(3, option(8, nil), option(7, infoData("root"))), true},
		{hello(3, option(8, nil), option(1, []byte("root"))), true},
		{hello(3, option(8, []byte("x")), option(7, infoData("root"))), false},
		{hello(3, option(7, infoData("root"))), false},
	} {
		s := &script{Reader: bytes.NewReader(c.client)}
		if _, structured, err := Handshake(s, testExports); err != nil || structured != c.want {
			t.Errorf("% x: structured %v, error %v", c.client, structured, err)
		}
	}
}

func TestHandshakeBytes(t *testing.T) {
	// What the export is said to be: size, flags (has flags, read-only, flush,
	// multi-conn) and block sizes.
	s := &script{Reader: bytes.NewReader(hello(3, option(7, infoData("root"))))}
	if _, _, err := Handshake(s, testExports); err != nil {
		t.Fatal(err)
	}
	if want := []byte("NBDMAGICIHAVEOPT\x00\x03"); !bytes.HasPrefix(s.said.Bytes(), want) {
		t.Errorf("greeting is %q", s.said.Bytes()[:18])
	}
	_, data := kinds(t, s.said.Bytes())
	want := [][]byte{
		{0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0x01, 0x07},
		{0, 3, 0, 0, 0, 1, 0, 2, 0, 0, 2, 0, 0, 0},
		{},
	}
	if !reflect.DeepEqual(data, want) {
		t.Errorf("replies\n% x, want\n% x", data, want)
	}
}

func TestHandshakeExportName(t *testing.T) {
	for _, c := range []struct {
		flags  uint32
		length int
	}{{0, 134}, {1, 134}, {3, 10}} {
		s := &script{Reader: bytes.NewReader(hello(c.flags, option(1, []byte("other"))))}
		e, _, err := Handshake(s, testExports)
		if err != nil || e.Name != "other" {
			t.Fatalf("export %v, error %v", e, err)
		}
		reply := s.said.Bytes()[18:]
		if len(reply) != c.length || binary.BigEndian.Uint64(reply) != 12345 {
			t.Errorf("client flags %d: reply % x", c.flags, reply)
		}
	}
	s := &script{Reader: bytes.NewReader(hello(3, option(1, []byte("nope"))))}
	if _, _, err := Handshake(s, testExports); err == nil || errors.Is(err, ErrAborted) || s.said.Len() != 18 {
		t.Errorf("unknown export: error %v, %d bytes said", err, s.said.Len())
	}
}

func FuzzHandshake(f *testing.F) {
	f.Add(hello(3, option(3, nil), option(6, infoData("root", 0, 1, 2, 3)), option(7, infoData("root"))))
	f.Add(hello(0, option(1, []byte("root"))))
	f.Add(hello(3, option(8, nil), option(2, nil)))
	f.Add(hello(3, option(7, []byte{0xff, 0xff, 0xff, 0xff, 0, 0})))
	f.Add(hello(3, option(7, []byte{0, 0, 0, 0, 0xff, 0xff})))
	f.Fuzz(func(t *testing.T, client []byte) {
		in := bytes.NewReader(client)
		s := &script{Reader: in}
		e, _, err := Handshake(s, testExports)
		if (e == nil) == (err == nil) {
			t.Fatalf("export %v and error %v", e, err)
		}
		if s.said.Len() > 18+maxOptions*4096 {
			t.Fatalf("%d bytes asked, %d said", len(client), s.said.Len())
		}
	})
}

func FuzzParseInfoRequest(f *testing.F) {
	f.Add(infoData("root", 0, 3))
	f.Add([]byte{0xff, 0xff, 0xff, 0xfe, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseInfoRequest(data)
		if err == nil && !bytes.Equal(infoData(r.name, r.infos...), data) {
			t.Fatalf("% x decoded as %+v", data, r)
		}
	})
}
