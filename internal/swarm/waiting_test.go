package swarm

import (
	"net"
	"regexp"
	"testing"

	"viver.lan/internal/swarm/wire"
)

// What is said about a piece follows what happens to those who have it.
func TestWhyAReadWaits(t *testing.T) {
	info, data := newImage(t, 8)
	n := start(t, info, "n", nil)
	n.wantNothing()
	is := func(what, pattern string) {
		t.Helper()
		eventually(t, what, func() bool { return regexp.MustCompile("^" + pattern + "$").MatchString(n.waiting(5)) })
	}
	is("nobody", "no peer is known")

	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	n.AddPeer(closed.Addr().(*net.TCPAddr).AddrPort(), false)
	is("one that is not there", "1 peer known, none has answered yet")

	empty := newFake(info, data, "empty")
	empty.greet = func(c net.Conn) { c.Write(wire.Message{Type: wire.HaveNone}.Append(nil)) }
	n.AddPeer(empty.listen(t), false)
	is("one without the piece", "2 peers known, 1 answers, none has it")

	choking := newFake(info, data, "choking")
	choking.greet = func(c net.Conn) { c.Write(wire.Message{Type: wire.HaveAll}.Append(nil)) }
	n.AddPeer(choking.listen(t), false)
	is("one that chokes", "3 peers known, 1 has it, none takes a request")

	silent := newFake(info, data, "silent")
	silent.serve = func(*fake, net.Conn, wire.Block) error { return nil }
	t.Run("until it is gone", func(t *testing.T) {
		addr := silent.listen(t)
		n.AddPeer(addr, false)
		n.Demand(5)
		is("one that never sends", "4 peers known, asked "+regexp.QuoteMeta(addr.String()))
		if n, origin := n.OutOfReach(); n != 0 || origin {
			t.Errorf("out of reach: %d pieces, origin %v", n, origin)
		}
	})
	is("it is gone", "4 peers known, 1 has it, none takes a request")
}

// All peers are gone: that is said, with the time of it, and what nobody has
// is counted.
func TestAllPeersAreGone(t *testing.T) {
	info, data := newImage(t, 8)
	n := start(t, info, "n", nil)
	n.wantNothing()
	t.Run("until all are gone", func(t *testing.T) {
		for _, id := range []string{"a", "b", "c"} {
			n.AddPeer(newFake(info, data, id).listen(t), false)
		}
		eventually(t, "all are connected", func() bool { p, _ := n.Status(); return len(p) == 3 })
		n.Demand(2)
		eventually(t, "the piece is here", func() bool { return n.store.Has(2) })
	})
	eventually(t, "it is said", func() bool {
		return regexp.MustCompile(`^3 peers known, no answer for [1-9]\d* s$`).MatchString(n.waiting(5))
	})
	if missing, _ := n.OutOfReach(); missing != 7 {
		t.Errorf("%d pieces are out of reach, want 7", missing)
	}
}
