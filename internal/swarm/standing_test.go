package swarm

import (
	"net"
	"regexp"
	"testing"
	"time"

	"viver.lan/internal/swarm/wire"
)

func rejecting(_ *fake, c net.Conn, b wire.Block) error {
	_, err := c.Write(wire.Message{Type: wire.Reject, Block: b}.Append(nil))
	return err
}

func silent(*fake, net.Conn, wire.Block) error { return nil }

// Peers that say that they have everything, and give nothing, hold nothing up:
// the first node is asked for what would have been theirs, and they are asked
// for a piece now and then.
func TestPeersThatGiveNothing(t *testing.T) {
	for name, serve := range map[string]func(*fake, net.Conn, wire.Block) error{"reject": rejecting, "silent": silent} {
		t.Run(name, func(t *testing.T) {
			info, data := newImage(t, 200)
			n := start(t, info, "n", nil)
			liars := []*fake{newFake(info, data, "x"), newFake(info, data, "y"), newFake(info, data, "z")}
			for _, l := range liars {
				l.serve = serve
				l.ours(t)
				n.AddPeer(l.listen(t), false)
			}
			eventually(t, "the liars are here", func() bool { p, _ := n.Status(); return len(p) == len(liars) && p[0].Have == 200 })
			first := newFake(info, data, "first")
			first.ours(t)
			n.AddPeer(first.listen(t), true)
			eventually(t, "complete", hasAll(n))
			check(t, n, data)
			for _, l := range liars {
				if asked := len(l.asked()); asked > 40 {
					t.Errorf("one that gives nothing was asked %d times", asked)
				}
			}
		})
	}
}

// A peer that gave nothing, and comes back under another name, is asked for one
// piece before anything is planned with it; when it gives that, it is like any
// other.
func TestComesBackUnderAnotherName(t *testing.T) {
	info, data := newImage(t, 40)
	n := start(t, info, "n", nil)
	bad := newFake(info, data, "bad")
	bad.ours(t).serve = rejecting
	c, err := net.Dial("tcp", n.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	go bad.talk(c)
	distrusted := func(c net.Conn) func() bool {
		line := regexp.MustCompile(`others are asked.* peer=` + regexp.QuoteMeta(c.LocalAddr().String()))
		return func() bool { return line.MatchString(n.log.String()) }
	}
	eventually(t, "it is found out", distrusted(c))
	c.Close()
	eventually(t, "it is gone", func() bool { p, _ := n.Status(); return len(p) == 0 })
	again := newFake(info, data, "again")
	again.ours(t)
	release := make(chan struct{})
	again.serve = func(f *fake, c net.Conn, b wire.Block) error {
		<-release
		return f.right(c, b)
	}
	if c, err = net.Dial("tcp", n.Addr().String()); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go again.talk(c)
	eventually(t, "it is asked", func() bool { return len(again.asked()) > 0 })
	time.Sleep(50 * time.Millisecond) // for more requests, if there were any
	if got := len(again.asked()); got != 1 || !distrusted(c)() {
		t.Errorf("asked for %d pieces", got)
	}
	close(release)
	eventually(t, "complete", hasAll(n))
	check(t, n, data)
}
