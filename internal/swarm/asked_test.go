package swarm

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"viver.lan/internal/swarm/wire"
)

// What was asked for and has no answer yet is known before the bytes come.
func TestAsked(t *testing.T) {
	b, c := wire.Block{Piece: 1, Length: 5}, wire.Block{Piece: 2, Length: 5}
	for name, test := range map[string]struct {
		sent []wire.Message
		got  []wire.Message
		fast bool
		want bool // the last one answers a request
		left int
	}{
		"a block":                     {[]wire.Message{{Type: wire.Request, Block: b}}, []wire.Message{{Type: wire.Piece, Block: b}}, true, true, 0},
		"it comes twice":              {[]wire.Message{{Type: wire.Request, Block: b}}, []wire.Message{{Type: wire.Piece, Block: b}, {Type: wire.Piece, Block: b}}, true, false, 0},
		"another block":               {[]wire.Message{{Type: wire.Request, Block: b}}, []wire.Message{{Type: wire.Piece, Block: c}}, true, false, 1},
		"a part of it":                {[]wire.Message{{Type: wire.Request, Block: b}}, []wire.Message{{Type: wire.Piece, Block: wire.Block{Piece: 1, Length: 1}}}, true, false, 1},
		"it was cancelled":            {[]wire.Message{{Type: wire.Request, Block: b}, {Type: wire.Cancel, Block: b}}, []wire.Message{{Type: wire.Piece, Block: b}}, true, false, 0},
		"it was rejected":             {[]wire.Message{{Type: wire.Request, Block: b}}, []wire.Message{{Type: wire.Reject, Block: b}, {Type: wire.Piece, Block: b}}, true, false, 0},
		"choked":                      {[]wire.Message{{Type: wire.Request, Block: b}}, []wire.Message{{Type: wire.Choke}, {Type: wire.Piece, Block: b}}, true, true, 0},
		"choked, no fast extension":   {[]wire.Message{{Type: wire.Request, Block: b}}, []wire.Message{{Type: wire.Choke}, {Type: wire.Piece, Block: b}}, false, false, 0},
		"a sign of life, not a choke": {[]wire.Message{{Type: wire.Request, Block: b}}, []wire.Message{{KeepAlive: true}, {Type: wire.Piece, Block: b}}, false, true, 0},
	} {
		a, was := make(asked), false
		for _, m := range test.sent {
			a.sent(m)
		}
		for _, m := range test.got {
			was = a.answered(m, test.fast)
		}
		if was != test.want || len(a) != test.left {
			t.Errorf("%s: answers a request: %v, %d are left", name, was, len(a))
		}
	}
}

// unasked returns n pieces that nobody asked for.
func (f *fake) unasked(n int) (b []byte) {
	for range n {
		b = append(wire.Message{Type: wire.Piece, Block: wire.Block{Piece: 0, Length: testPiece}}.Append(b), f.data[:testPiece]...)
	}
	return b
}

// A node, too, gets no piece's buffer for bytes that nobody asked it for.
func TestNoBufferForUnaskedBlocks(t *testing.T) {
	info, data := newImage(t, 4)
	n := start(t, info, "n", data)
	var buffers atomic.Int64
	n.wholes.New = func() any { buffers.Add(1); b := make([]byte, testPiece); return &b }
	f := newFake(info, data, "f").ours(t)
	c, err := net.Dial("tcp", n.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	go f.talk(c)
	eventually(t, "it has proved its key", func() bool { p, _ := n.Status(); return len(p) == 1 && p[0].Ours })
	const pieces = 20
	if _, err := c.Write(f.unasked(pieces)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all have come", func() bool { _, s := n.Status(); return s.Wasted == pieces*testPiece })
	if got := buffers.Load(); got > 0 {
		t.Errorf("%d buffers were taken", got)
	}
}

// Who has not proved a key is asked for blocks of wire.BlockSize, and sends no larger
// ones.
func TestStrangersSendSmallBlocks(t *testing.T) {
	info, data := newImage(t, 4)
	n := start(t, info, "n", nil)
	f := newFake(info, data, "f")
	over := make(chan struct{})
	f.serve = func(f *fake, c net.Conn, b wire.Block) error {
		if b.Length > wire.BlockSize {
			t.Errorf("asked for %v", b)
		}
		return f.right(c, b)
	}
	c, err := net.Dial("tcp", n.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	go func() { f.talk(c); close(over) }()
	eventually(t, "complete", hasAll(n))
	check(t, n, data)
	c.Write(f.unasked(1)[:100]) // without the rest
	select {
	case <-over:
	case <-time.After(strangerSilence / 2):
		t.Error("it may send a larger block")
	}
	c.Close()
}

// A peer that owes something is silent, whatever it sends beside.
func TestUnaskedBytesAreSilence(t *testing.T) {
	info, data := newImage(t, 4)
	n := start(t, info, "n", nil)
	f := newFake(info, data, "f").ours(t)
	f.serve = silent
	c, err := net.Dial("tcp", n.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	go f.talk(c)
	eventually(t, "it is asked", func() bool { return len(f.asked()) > 0 })
	junk := append(wire.Message{Type: wire.Piece, Block: wire.Block{Piece: 0, Length: 1}}.Append(nil), 0)
	eventually(t, "it is stalled", func() bool {
		c.Write(junk)
		p, _ := n.Status()
		return len(p) == 1 && p[0].State == "stalled"
	})
	c.Close()
}
