package vfield

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"viver.lan/internal/piecestore"
	"viver.lan/internal/schedule"
)

// faultyMedium injects what media do.
type faultyMedium struct {
	r     io.ReaderAt
	delay time.Duration // of every read
	seek  time.Duration // of a read that does not follow the last one

	mu    sync.Mutex
	pos   int64
	flip  map[int64]bool // offsets with a flipped bit
	out   bool           // pulled out
	seeks int
	bytes int64 // read in all

	busy atomic.Int64 // time.Duration: of all reads together, as the medium would take
}

var errPulled = errors.New("no medium found")

func (m *faultyMedium) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.delay
	if off != m.pos {
		d += m.seek
		m.seeks++
	}
	time.Sleep(d)
	m.busy.Add(int64(d))
	if m.out {
		return 0, errPulled
	}
	n, err := m.r.ReadAt(p, off)
	m.pos = off + int64(n)
	m.bytes += int64(n)
	for f := range m.flip {
		if f >= off && f < off+int64(n) {
			p[f-off] ^= 0x10
		}
	}
	return n, err
}

func (m *faultyMedium) pull(out bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.out = out
}

func flip(t testing.TB, path string, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
}

// A flipped bit on the medium is named, nobody gets the wrong bytes, and the
// piece comes from a peer once there is one that has it.
func TestMediumWithFlippedBit(t *testing.T) {
	t.Parallel()
	im := newImage(t, 4<<20)
	const bad = 5*testPiece + 100
	m := &faultyMedium{r: bytes.NewReader(im.data), flip: map[int64]bool{bad: true}}
	o := start(t, im, "origin", func(c *Config, _ *piecestore.Config) { c.Medium = m })
	n := start(t, im, "n", nil)
	n.AddPeer(o.Addr(), true)
	eventually(t, "all but the bad piece", func() bool { return n.store.Count() == n.info.NumPieces()-1 })
	if s := o.Status(); len(s.MediumBad) != 1 || s.MediumBad[0] != 5 || s.Have != s.Pieces-1 {
		t.Errorf("bad pieces %v, have %d", s.MediumBad, s.Have)
	}
	if l := o.log.String(); !strings.Contains(l, "piece=5 offset=655360 end=786431") {
		t.Error("the log does not name the place")
	}
	done := make(chan struct{})
	go func() { readAll(t, o, im); close(done) }()
	eventually(t, "the origin says that it waits", func() bool {
		return strings.Contains(o.events.String(), `"kind":"waiting","data":{"piece":5`)
	})
	// Somebody brings a good copy.
	helper := start(t, im, "helper", origin(im))
	o.AddPeer(helper.Addr(), false)
	n.AddPeer(helper.Addr(), false)
	<-done
	eventually(t, "all have all", func() bool { return complete(n) && complete(o) })
}

// The medium is pulled out: what is not in memory comes from the others; put
// back, it is used again.
func TestMediumPulledOut(t *testing.T) {
	t.Parallel()
	im := newImage(t, 4<<20)
	m := &faultyMedium{r: bytes.NewReader(im.data)}
	o := start(t, im, "origin", func(c *Config, p *piecestore.Config) {
		c.Medium = m
		p.Budget = 1 << 20
	})
	n := start(t, im, "n", nil)
	n.AddPeer(o.Addr(), true)
	eventually(t, "n has all", func() bool { return complete(n) })
	m.pull(true)
	readAll(t, o, im)
	s := o.Status()
	if !s.MediumGone || s.FromPeers == 0 {
		t.Errorf("gone %v, from peers %d", s.MediumGone, s.FromPeers)
	}
	readAll(t, o, im)
	m.pull(false)
	eventually(t, "the medium is back", func() bool { s := o.Status(); return !s.MediumGone && s.Have == s.Pieces })
}

// The first node with RAM for all reads its medium once, in order.
func TestMediumIsReadInOrder(t *testing.T) {
	im := newImage(t, 4<<20)
	m := &faultyMedium{r: bytes.NewReader(im.data)}
	o := start(t, im, "origin", func(c *Config, _ *piecestore.Config) { c.Medium = m })
	eventually(t, "all is in memory", func() bool { return complete(o) })
	if m.seeks > 1 || o.Status().FromMedium != uint64(im.info.Size) {
		t.Errorf("%d seeks, %d bytes", m.seeks, o.Status().FromMedium)
	}
	m.pull(true)
	readAll(t, o, im)
	if o.Independence().Independent {
		t.Error("the first node alone calls the network independent of it")
	}
}

// Who asked for a piece when the store did not have it yet, and the medium when it has
// been read meanwhile, gets it from the store.
func TestMediumIsNotReadForWhatIsStored(t *testing.T) {
	im := newImage(t, 4<<20)
	m := &faultyMedium{r: bytes.NewReader(im.data)}
	o := start(t, im, "origin", func(c *Config, _ *piecestore.Config) { c.Medium = m })
	eventually(t, "all is in memory", func() bool { return complete(o) })
	got, err := o.medium.open(t.Context(), 0, true)
	if err != nil || !bytes.Equal(got, im.data[:im.info.PieceSize(0)]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bytes != im.info.Size {
		t.Errorf("%d bytes were read of an image of %d", m.bytes, im.info.Size)
	}
}

// A disc of 48-fold speed, as a piece of it takes, and what a jump of its head
// costs.
const (
	discRate = 7_200_000 // bytes per second
	discSeek = 100 * time.Millisecond
)

// Nodes take the image from a disc, reading as it comes: the disc is read once,
// in order, also by a first node that has memory for an eighth of it only. The
// disc is as slow as a real one. What is judged is the time that it was busy, and
// how long somebody waited for it is measured by the same clock, not by one that
// depends on how busy this machine is. What nodes ask for again, because another was
// kept waiting on a busy machine, may cost the disc a way there and back.
func TestDiscIsNotMadeToSeek(t *testing.T) {
	t.Parallel()
	t.Run("memory for all", func(t *testing.T) { t.Parallel(); readDisc(t, 4, 0) })
	t.Run("little memory", func(t *testing.T) { t.Parallel(); readDisc(t, 4, 3<<20) })
	t.Run("many nodes", func(t *testing.T) { t.Parallel(); readDisc(t, 12, 0) })
}

func readDisc(t *testing.T, readers int, budget int64) {
	im := newImage(t, 24<<20)
	m := &faultyMedium{r: bytes.NewReader(im.data), delay: time.Duration(testPiece) * time.Second / discRate, seek: discSeek}
	o := prepare(t, im, "origin", func(c *Config, p *piecestore.Config) {
		c.Medium = m
		if budget > 0 {
			p.Budget = budget
		}
	})
	begin := time.Now()
	o.medium.now = func() time.Time { return begin.Add(time.Duration(m.busy.Load())) }
	o.run(t)
	var nodes []*testNode
	for i := range readers {
		// The disc counts its own time, readers the machine's: on a busy one they would
		// take a disc that works for a node that gives nothing, and ask in another order.
		patient := func(c *Config, _ *piecestore.Config) {
			c.Params = schedule.Params{Hedge: time.Minute, Stall: time.Minute}
		}
		n := start(t, im, fmt.Sprintf("n%d", i), patient)
		for _, other := range nodes {
			n.AddPeer(other.Addr(), false)
		}
		n.AddPeer(o.Addr(), true)
		nodes = append(nodes, n)
	}
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() { readAll(t, n, im) })
	}
	wg.Wait()
	for _, n := range nodes {
		eventually(t, "all nodes have all", func() bool { return complete(n) })
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	again := int64(0) // pieces that the disc may give a second time since memory no longer had them
	if budget > 0 {
		again = min(max(0, m.bytes-im.info.Size), im.info.Size/4) / testPiece
	}
	cost := func(bytes int64, seeks int) time.Duration {
		return time.Duration(bytes)*time.Second/discRate + time.Duration(seeks)*discSeek
	}
	once, took := cost(im.info.Size, 0), cost(m.bytes, m.seeks)
	t.Logf("%d seeks, %d bytes of %d: %.2f of one sequential read", m.seeks, m.bytes, im.info.Size, float64(took)/float64(once))
	if took > once*6/5+cost(again*testPiece, 2*int(again)) {
		t.Errorf("%d seeks and %d bytes read of an image of %d: %v of disc time, one read in order takes %v", m.seeks, m.bytes, im.info.Size, took, once)
	}
}

func TestDir(t *testing.T) {
	im := newImage(t, 1<<20+3)
	d, err := OpenDir(im.dir, im.info)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got := make([]byte, len(im.data))
	if n, err := d.ReadAt(got, 0); err != nil || n != len(got) || !bytes.Equal(got, im.data) {
		t.Errorf("%d bytes, %v", n, err)
	}
	cut := int64(im.info.Files[1].Offset)
	if _, err := d.ReadAt(got[:20], cut-10); err != nil || !bytes.Equal(got[:20], im.data[cut-10:cut+10]) {
		t.Error("a read across files:", err)
	}
	if n, err := d.ReadAt(got[:20], int64(len(im.data))-5); err != io.EOF || n != 5 {
		t.Error("a read beyond the end:", n, err)
	}
	os.Truncate(im.dir+"/vmlinuz", 5)
	if _, err := OpenDir(im.dir, im.info); err == nil || !strings.Contains(err.Error(), "vmlinuz") {
		t.Error("a truncated file:", err)
	}
}

// A medium whose reads hang does not keep readers from the peers.
func TestMediumHangs(t *testing.T) {
	t.Parallel()
	im := newImage(t, 2<<20)
	release := make(chan struct{})
	o := start(t, im, "origin", func(c *Config, _ *piecestore.Config) {
		c.Medium = readerAtFunc(func(p []byte, off int64) (int, error) {
			<-release
			return bytes.NewReader(im.data).ReadAt(p, off)
		})
	})
	t.Cleanup(func() { close(release) }) // before the nodes stop
	helper := start(t, im, "helper", func(c *Config, _ *piecestore.Config) { c.Medium = bytes.NewReader(im.data) })
	o.AddPeer(helper.Addr(), false)
	readAll(t, o, im)
	if s := o.Status(); !s.MediumGone {
		t.Error("a hanging medium counts as present")
	}
}

type readerAtFunc func(p []byte, off int64) (int, error)

func (f readerAtFunc) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }
