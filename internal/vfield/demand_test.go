package vfield

import (
	"bytes"
	"testing"
	"time"

	"viver.lan/internal/piecestore"
)

// A node that boots fetches what is read and what comes next, and the rest afterwards.
func TestDemandOnly(t *testing.T) {
	im := newImage(t, 24<<20)
	o := start(t, im, "origin", origin(im))
	n := start(t, im, "n", nil)
	n.DemandOnly(true)
	n.Expect([]int{100, 90, 101})
	n.AddPeer(o.Addr(), true)
	eventually(t, "what is expected is fetched", func() bool { return n.store.Has(90) && n.store.Has(100) && n.store.Has(101) })
	length := n.info.PieceLength
	read := func(i int) {
		if err := n.ReadAt(t.Context(), make([]byte, 10), int64(i)*length); err != nil {
			t.Fatal(err)
		}
	}
	for i := 7; i <= 11; i++ {
		read(i)
	}
	eventually(t, "what follows is fetched ahead", func() bool { return n.store.Has(11 + maxAhead) })
	time.Sleep(3 * placeEvery) // placement would have had its turns
	if got, want := n.store.Count(), 3+5+maxAhead; got != want {
		t.Errorf("%d pieces were fetched, want %d", got, want)
	}
	p := make([]byte, 2*length)
	if err := n.ReadHere(p, 10*length-5); err != nil || !bytes.Equal(p, im.data[10*length-5:12*length-5]) {
		t.Errorf("what is here: %v", err)
	}
	if n.ReadHere(p, 6*length+5) == nil || n.ReadHere(p, n.Size()-1) == nil {
		t.Error("what is not here, or not there, was read")
	}
	n.DemandOnly(false)
	eventually(t, "the rest comes", func() bool { return complete(n) })
}

// The first node does not read its medium ahead while it boots, but serves others.
func TestDemandOnlyOnTheFirstNode(t *testing.T) {
	im := newImage(t, 8<<20)
	o := start(t, im, "origin", func(c *Config, p *piecestore.Config) {
		origin(im)(c, p)
	})
	o.DemandOnly(true)
	before := o.store.Count() // what was read ahead until then
	n := start(t, im, "n", nil)
	n.AddPeer(o.Addr(), true)
	eventually(t, "another node gets everything", func() bool { return complete(n) })
	o.DemandOnly(false)
	eventually(t, "the medium is read ahead", func() bool { return complete(o) })
	t.Logf("%d pieces were read ahead before", before)
}
