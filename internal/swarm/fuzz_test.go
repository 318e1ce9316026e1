package swarm

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"viver.lan/internal/exchange"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/swarm/wire"
)

// FuzzPeer lets a peer that shook hands rightly say anything at all, to a node
// that holds some pieces and wants others: nothing it says ends the node, keeps
// the connection open for ever or reaches the store. Coverage is never the same
// twice here: fuzz with -fuzzminimizetime 10x, or Go spends its time minimising.
func FuzzPeer(f *testing.F) {
	info, data := newImage(f, 16)
	st := &memStore{pieces: make(map[int][]byte)}
	// Peers are told of addresses here too: all on loopback.
	s := launch(f, Config{Info: info, Store: st, Key: identitytest.Key(f, "n"),
		Listen: netip.MustParseAddrPort("127.77.0.1:0"), Network: netip.MustParsePrefix("127.77.0.1/32")}, st, nil)
	for i := range 4 {
		off := info.PieceOffset(i)
		if err := st.Put(i, [][]byte{data[off : off+info.PieceSize(i)]}); err != nil {
			f.Fatal(err)
		}
		s.Changed(i)
	}
	s.Do(func(x *exchange.Exchange) { x.Demand(7, true) })

	hello := func(ours bool) []byte {
		var h wire.Hello
		h.M.Pex, h.M.DontHave, h.M.Urgent = 1, 2, 3
		if ours {
			h.Block, h.Budget = testPiece, info.Size
			h.M.Proof, h.Key, h.Nonce = 4, make([]byte, 32), make([]byte, wire.NonceSize)
		}
		return wire.Message{Type: wire.Unchoke}.Append(wire.Message{Type: wire.HaveAll}.Append(wire.Extension(wire.IDHandshake, h.Payload()).Append(nil)))
	}
	block := wire.Block{Piece: 7, Begin: 0, Length: wire.BlockSize}
	whole := wire.Block{Piece: 7, Begin: 0, Length: testPiece}
	answer := func(b wire.Block) []byte {
		return append(wire.Message{Type: wire.Piece, Block: b}.Append(nil), make([]byte, b.Length)...)
	}
	join := func(parts ...[]byte) (out []byte) {
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	f.Add(true, join(hello(true), answer(whole), answer(whole)))
	f.Add(true, join(hello(false), answer(block), answer(wire.Block{Piece: 7, Begin: 1, Length: 100})))
	f.Add(false, join(wire.Message{Type: wire.Unchoke}.Append(nil), wire.Message{Type: wire.Bitfield, Payload: wire.Bits(16, func(i int) bool { return i > 2 })}.Append(nil), wire.Message{Type: wire.Choke}.Append(nil)))
	f.Add(true, join(hello(true), wire.Message{Type: wire.Reject, Block: whole}.Append(nil), wire.Extension(wire.IDDontHave, wire.PieceHint(7)).Append(nil), wire.Extension(wire.IDUrgent, wire.PieceHint(2)).Append(nil)))
	f.Add(true, join(hello(true), wire.Message{Type: wire.Request, Block: wire.Block{Piece: 1, Length: 1}}.Append(nil), wire.Message{Type: wire.Cancel, Block: wire.Block{Piece: 1, Length: 1}}.Append(nil),
		wire.Message{Type: wire.Request, Block: wire.Block{Piece: 9, Length: 1}}.Append(nil)))
	f.Add(true, join(hello(true), hello(false), wire.Extension(wire.IDPex, wire.Pex{Added: []netip.AddrPort{netip.MustParseAddrPort("127.77.0.1:1")}}.Payload()).Append(nil)))
	f.Add(true, join(hello(true), wire.Extension(wire.IDProof, make([]byte, 64)).Append(nil), wire.Extension(wire.IDProof, nil).Append(nil)))
	f.Add(true, join(wire.Message{Type: wire.HaveNone}.Append(nil), wire.Message{Type: wire.Have, Block: wire.Block{Piece: 15}}.Append(nil), wire.Message{KeepAlive: true}.Append(nil)))
	var peer atomic.Uint64
	f.Fuzz(func(t *testing.T, extensions bool, says []byte) {
		d := net.Dialer{Timeout: time.Minute, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 77, 0, 1)}}
		c, err := d.Dial("tcp", s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(2 * time.Minute))
		hs := wire.Handshake{Infohash: info.Infohash, Fast: extensions, Extended: extensions}
		binary.BigEndian.PutUint64(hs.PeerID[:], peer.Add(1)) // somebody else each time
		c.Write(append(hs.Append(nil), says...))
		c.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, c); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Error("the connection stays open")
			}
		}
		if n := st.count(); n != 4 {
			t.Fatalf("the store holds %d pieces, was given 4", n)
		}
	})
}
