package wire

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	pp "github.com/anacrolix/torrent/peer_protocol"
)

var limits = Limits{Pieces: 20, Block: 128 << 10}

// TestEncodingAgainstAnacrolix compares what we write with what an
// independent implementation writes.
func TestEncodingAgainstAnacrolix(t *testing.T) {
	has := func(i int) bool { return i%3 == 0 }
	var field []bool
	for i := range 24 {
		field = append(field, i < 20 && has(i))
	}
	blk := Block{7, 1 << 14, 1 << 14}
	data := bytes.Repeat([]byte{0xab}, blk.Length)
	for name, c := range map[string]struct {
		got  []byte
		want pp.Message
	}{
		"keep-alive": {Message{KeepAlive: true}.Append(nil), pp.Message{Keepalive: true}},
		"unchoke":    {Message{Type: Unchoke}.Append(nil), pp.Message{Type: pp.Unchoke}},
		"have all":   {Message{Type: HaveAll}.Append(nil), pp.Message{Type: pp.HaveAll}},
		"have":       {Message{Type: Have, Block: Block{Piece: 300}}.Append(nil), pp.Message{Type: pp.Have, Index: 300}},
		"request":    {Message{Type: Request, Block: blk}.Append(nil), pp.Message{Type: pp.Request, Index: 7, Begin: 1 << 14, Length: 1 << 14}},
		"reject":     {Message{Type: Reject, Block: blk}.Append(nil), pp.Message{Type: pp.Reject, Index: 7, Begin: 1 << 14, Length: 1 << 14}},
		"bitfield":   {Message{Type: Bitfield, Payload: Bits(20, has)}.Append(nil), pp.Message{Type: pp.Bitfield, Bitfield: field}},
		"piece":      {append(Message{Type: Piece, Block: blk}.Append(nil), data...), pp.Message{Type: pp.Piece, Index: 7, Begin: 1 << 14, Piece: data}},
		"extended":   {Extension(5, []byte("hi")).Append(nil), pp.Message{Type: pp.Extended, ExtendedID: 5, ExtendedPayload: []byte("hi")}},
	} {
		if want := c.want.MustMarshalBinary(); !bytes.Equal(c.got, want) {
			t.Errorf("%s: % x, want % x", name, c.got, want)
		}
	}
}

func TestReader(t *testing.T) {
	var b []byte
	b = Message{KeepAlive: true}.Append(b)
	b = Message{Type: Bitfield, Payload: Bits(20, func(i int) bool { return i == 19 })}.Append(b)
	b = append(b, 0, 0, 0, 3, 99, 1, 2) // an unknown type
	b = Message{Type: Have, Block: Block{Piece: 4}}.Append(b)
	b = Message{Type: Piece, Block: Block{3, 0, 1000}}.Append(b)
	b = append(b, bytes.Repeat([]byte{1}, 1000)...)
	b = Message{Type: Piece, Block: Block{4, 0, 1000}}.Append(b)
	b = append(b, bytes.Repeat([]byte{2}, 1000)...)
	b = Message{Type: Request, Block: Block{5, 16384, 16384}}.Append(b)
	b = Extension(IDDontHave, PieceHint(6)).Append(b)

	r := NewReader(iotest.OneByteReader(bytes.NewReader(b)), limits)
	next := func() Message {
		t.Helper()
		m, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	if m := next(); !m.KeepAlive {
		t.Error(m)
	}
	var have []int
	if m := next(); m.Type != Bitfield || ParseBitfield(m.Payload, 20, func(i int) { have = append(have, i) }) != nil || !slices.Equal(have, []int{19}) {
		t.Error(m, have)
	}
	if m := next(); m.Type != Have || m.Block.Piece != 4 {
		t.Error(m)
	}
	if m := next(); m.Type != Piece || m.Block != (Block{3, 0, 1000}) {
		t.Error(m)
	}
	// The body of piece 3 is not read: Next skips it.
	if m := next(); m.Type != Piece || m.Block.Piece != 4 {
		t.Error(m)
	}
	var body []byte
	buf := make([]byte, 300)
	for {
		n, err := r.ReadBody(buf)
		body = append(body, buf[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(body, bytes.Repeat([]byte{2}, 1000)) {
		t.Error("wrong body")
	}
	if m := next(); m.Type != Request || m.Block != (Block{5, 16384, 16384}) {
		t.Error(m)
	}
	m := next()
	if i, err := ParsePieceHint(m.Payload, 20); m.ExtendedID != IDDontHave || i != 6 || err != nil {
		t.Error(m, i, err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Error("clean end gave", err)
	}
}

func TestReaderRefuses(t *testing.T) {
	for name, b := range map[string][]byte{
		"length beyond":        {0xff, 0xff, 0xff, 0xff, 7},
		"short have":           {0, 0, 0, 2, 4, 0},
		"have out of range":    Message{Type: Have, Block: Block{Piece: 20}}.Append(nil),
		"have near 2^32":       Message{Type: Have, Block: Block{Piece: 1<<32 - 1}}.Append(nil),
		"request out of range": Message{Type: Request, Block: Block{20, 0, 1}}.Append(nil),
		"bitfield size":        Message{Type: Bitfield, Payload: Bits(8, func(int) bool { return true })}.Append(nil),
		"empty piece":          Message{Type: Piece, Block: Block{0, 0, 0}}.Append(nil),
		"block too long":       Message{Type: Piece, Block: Block{0, 0, limits.Block + 1}}.Append(nil),
		"extended too long":    Extension(1, make([]byte, MaxExtended)).Append(nil),
		"empty extended":       {0, 0, 0, 1, 20},
		"truncated":            Message{Type: Have, Block: Block{Piece: 3}}.Append(nil)[:7],
	} {
		r := NewReader(bytes.NewReader(b), limits)
		if m, err := r.Next(); err == nil || err == io.EOF {
			t.Errorf("%s: message %+v, error %v", name, m, err)
		}
	}
	if err := ParseBitfield([]byte{0, 0, 1}, 20, func(int) {}); err == nil {
		t.Error("spare bits accepted")
	}
}

func TestHandshake(t *testing.T) {
	h := Handshake{Infohash: [20]byte{1, 2}, PeerID: PeerID{3, 4}, Fast: true, Extended: true}
	b := h.Append(nil)
	got, err := ParseHandshake([HandshakeSize]byte(b))
	if err != nil || got != h {
		t.Errorf("%+v, %v", got, err)
	}
	b[3] = 'x'
	if _, err := ParseHandshake([HandshakeSize]byte(b)); err == nil {
		t.Error("accepted another protocol")
	}
}

func TestHello(t *testing.T) {
	var h Hello
	h.M.Pex, h.M.DontHave, h.M.Urgent = IDPex, IDDontHave, IDUrgent
	h.Client, h.Port, h.Queue, h.Block, h.Origin, h.Budget = "VIVER", 6881, 250, 128<<10, 1, 1<<30
	h.M.Proof, h.Key, h.Nonce = IDProof, bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, NonceSize)
	if !h.CanProve() {
		t.Errorf("%+v cannot prove its key", h)
	}
	m, err := NewReader(bytes.NewReader(Extension(IDHandshake, h.Payload()).Append(nil)), limits).Next()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseHello(m.Payload); err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("%+v, %v", got, err)
	}
	// libtorrent and others send keys and extensions unknown to us.
	got, err := ParseHello([]byte("d1:ei0e1:md11:ut_metadatai2e6:ut_pexi1ee1:pi6881e4:reqqi500e1:v17:libtorrent/2.0.8.6:yourip4:\x0a\x00\x00\x01e"))
	if err != nil || got.M.Pex != 1 || got.Port != 6881 || got.Queue != 500 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "de1", "d1:pi70000ee", "d1:mi1ee", "d1:pi-1ee", "d1:v-5:e", strings.Repeat("l", 60000)} {
		if got, err := ParseHello([]byte(bad)); err == nil {
			t.Errorf("%.20q accepted as %+v", bad, got)
		}
	}
}

func TestPex(t *testing.T) {
	p := Pex{
		Added:   []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:6881"), netip.MustParseAddrPort("[fe80::1]:7000")},
		Dropped: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:1")},
	}
	m, err := NewReader(bytes.NewReader(Extension(9, p.Payload()).Append(nil)), limits).Next()
	if err != nil || m.ExtendedID != 9 {
		t.Fatal(m, err)
	}
	if got, err := ParsePex(m.Payload); err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("%+v, %v", got, err)
	}
	// An independent decoder agrees.
	theirs, err := pp.LoadPexMsg(m.Payload)
	if err != nil || len(theirs.Added) != 1 || len(theirs.Added6) != 1 || len(theirs.AddedFlags) != 1 || theirs.Added[0].Port != 6881 {
		t.Errorf("%+v, %v", theirs, err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(Message{Type: Have, Block: Block{Piece: 4}}.Append(Message{Type: Bitfield, Payload: Bits(20, func(i int) bool { return i == 1 })}.Append(nil)))
	f.Add(append(Message{Type: Piece, Block: Block{3, 0, 10}}.Append(nil), "0123456789"...))
	f.Add(Extension(IDHandshake, Hello{Client: "x"}.Payload()).Append(nil))
	f.Add(Extension(IDPex, Pex{Added: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:6881")}}.Payload()).Append(nil))
	f.Add(Extension(IDUrgent, PieceHint(3)).Append(nil))
	f.Add([]byte{0, 0, 0, 1, 20})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(bytes.NewReader(data), limits)
		for {
			ready := r.Ready()
			m, err := r.Next()
			if ready && errors.Is(err, io.EOF) {
				t.Fatal("a message that was there as a whole was waited for")
			}
			if err != nil {
				return
			}
			if m.Block.Piece < 0 || m.Block.Piece >= limits.Pieces || m.Type == Piece && (m.Block.Length < 1 || m.Block.Length > limits.Block) {
				t.Fatalf("out of the limits: %+v", m)
			}
			switch m.Type {
			case Bitfield:
				_ = ParseBitfield(m.Payload, limits.Pieces, func(i int) {
					if i >= limits.Pieces {
						t.Fatal(i)
					}
				})
			case Extended:
				_, _ = ParseHello(m.Payload)
				_, _ = ParsePex(m.Payload)
				_, _ = ParsePieceHint(m.Payload, limits.Pieces)
			case Piece:
				buf := make([]byte, 100)
				n := 0
				for {
					k, err := r.ReadBody(buf)
					n += k
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						return
					}
				}
				if n != m.Block.Length {
					t.Fatalf("body of %d bytes, header says %d", n, m.Block.Length)
				}
			}
		}
	})
}

// What is encoded as a value is read as the same value, and what came together is
// known to be there.
func TestMessageAppend(t *testing.T) {
	all := []Message{
		{Type: Unchoke}, {KeepAlive: true}, {Type: Have, Block: Block{Piece: 7}}, {Type: Reject, Block: Block{1, 2, 3}},
		{Type: Bitfield, Payload: Bits(limits.Pieces, func(i int) bool { return i == 2 })},
		{Type: Extended, ExtendedID: IDUrgent, Payload: PieceHint(4)}, {Type: NotInterested},
	}
	var b []byte
	for _, m := range all {
		b = m.Append(b)
	}
	r := NewReader(bytes.NewReader(b), limits)
	for n, want := range all {
		if r.Ready() != (n > 0) {
			t.Errorf("message %d is here: %v", n, n == 0)
		}
		if m, err := r.Next(); err != nil || !reflect.DeepEqual(m, want) {
			t.Errorf("%+v became %+v, %v", want, m, err)
		}
	}
	if r.Ready() {
		t.Error("there is one more")
	}
}
