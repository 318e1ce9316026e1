package vfield

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/anacrolix/torrent"
	ametainfo "github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"

	"viver.lan/internal/metainfo"
)

// anacrolix's Client fetches the whole image from one of our nodes and, as its
// only source, feeds one: on loopback, with no discovery. What other people's
// programs make of our nodes is tested with the real process, in cmds/vfield.

// downloaded reports whether dir holds the image as a client lays it out.
func (im *image) downloaded(dir string) bool {
	var all []byte
	for _, f := range im.info.Files {
		b, _ := os.ReadFile(filepath.Join(dir, im.info.Name, f.Name))
		all = append(all, b...)
	}
	return bytes.Equal(all, im.data)
}

// layOut makes the directory that a client seeds from.
func (im *image) layOut(t testing.TB) string {
	dir := t.TempDir()
	if err := os.Symlink(im.dir, filepath.Join(dir, im.info.Name)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// served waits until a stranger that can only ask our node has it all; our
// node is no origin, so that both kinds of serving are covered elsewhere.
func served(t *testing.T, im *image, begin func(peer netip.AddrPort, dir string)) {
	o := start(t, im, "origin", origin(im))
	dir := t.TempDir()
	begin(o.Addr(), dir)
	eventually(t, "the stranger has the image", func() bool { return im.downloaded(dir) })
	if s := o.Status(); s.Sent < uint64(im.info.Size) {
		t.Errorf("sent %d bytes of %d", s.Sent, im.info.Size)
	}
}

// fed lets a node of ours fetch everything from a stranger at addr.
func fed(t *testing.T, im *image, addr netip.AddrPort) {
	n := start(t, im, "n", nil)
	n.AddPeer(addr, false)
	readAll(t, n, im)
	eventually(t, "complete", func() bool { return complete(n) })
	if s := n.Status(); s.Wasted > 0 || s.Failed > 0 {
		t.Errorf("wasted %d bytes, %d pieces failed", s.Wasted, s.Failed)
	}
	if n.Independence().Independent != true {
		t.Errorf("holds everything but: %+v", n.Independence())
	}
}

func loopback(port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))
}

// anacrolix starts anacrolix's Client with our image.
func anacrolix(t testing.TB, im *image, dir string) (*torrent.Client, *torrent.Torrent) {
	cfg := torrent.NewDefaultClientConfig()
	cfg.NoDHT, cfg.DisableTrackers, cfg.NoDefaultPortForwarding, cfg.DisableUTP, cfg.DisableIPv6 = true, true, true, true, true
	cfg.DisableWebseeds = true
	cfg.SetListenAddr("127.0.0.1:0")
	cfg.Seed = true
	cfg.DefaultStorage = storage.NewFileOpts(storage.NewFileClientOpts{ClientBaseDir: dir, PieceCompletion: storage.NewMapPieceCompletion()})
	c, err := torrent.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	mi, err := ametainfo.Load(bytes.NewReader(im.torrent))
	if err != nil {
		t.Fatal(err)
	}
	tor, err := c.AddTorrent(mi)
	if err != nil {
		t.Fatal(err)
	}
	return c, tor
}

func TestAnacrolixFetchesFromUs(t *testing.T) {
	im := newImage(t, 8<<20+99)
	served(t, im, func(peer netip.AddrPort, dir string) {
		_, tor := anacrolix(t, im, dir)
		tor.AddPeers([]torrent.PeerInfo{{Addr: net.TCPAddrFromAddrPort(peer), Trusted: true}})
		tor.DownloadAll()
	})
}

func TestAnacrolixFeedsUs(t *testing.T) {
	im := newImage(t, 8<<20+99)
	c, tor := anacrolix(t, im, im.layOut(t))
	if err := tor.VerifyDataContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	fed(t, im, loopback(c.LocalPort()))
}

// The metainfo that goes with an image is what strangers expect.
func TestInfohashIsTheirs(t *testing.T) {
	im := newImage(t, 1<<20)
	mi, err := ametainfo.Load(bytes.NewReader(im.torrent))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(mi.HashInfoBytes()); got != im.info.Infohash.String() {
		t.Errorf("infohash %s, theirs %s", im.info.Infohash, got)
	}
	if in, err := metainfo.Parse(im.torrent); err != nil || in.NumPieces() != im.info.NumPieces() {
		t.Error(in, err)
	}
}
