package blockdaemon

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"viver.lan/internal/bootphase"
	"viver.lan/internal/bootrecord"
	"viver.lan/internal/event"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/journal"
	"viver.lan/internal/klog"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/piecestore"
	"viver.lan/internal/vfield"
)

// bootingNode is the startup of a machine with a root disk of so many pieces.
type bootingNode struct {
	*startup
	volume      *vfield.Volume
	log, events *journal.Journal
}

const bootPiece = metainfo.MinPieceLength

func startBooting(t *testing.T, file string, pieces int) *bootingNode {
	t.Helper()
	root := filepath.Join(t.TempDir(), manifest.Root)
	if err := os.WriteFile(root, make([]byte, pieces*bootPiece), 0o644); err != nil {
		t.Fatal(err)
	}
	_, info, err := metainfo.Create("x", []metainfo.Source{{Name: manifest.Root, Path: root}}, bootPiece, nil)
	if err != nil {
		t.Fatal(err)
	}
	store, err := piecestore.Open(piecestore.Config{Path: filepath.Join(t.TempDir(), "store"), Info: info})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	image := &manifest.Manifest{Infohash: info.Infohash, PieceLength: bootPiece, Files: []manifest.FileInfo{{Name: manifest.Root, Size: info.Size}}}
	n := &bootingNode{log: &journal.Journal{}, events: &journal.Journal{}}
	n.startup = newStartup(image, file, slog.New(slog.NewTextHandler(n.log, nil)), event.NewLog("vfield", klog.Uptime, n.events))
	n.volume, err = vfield.New(vfield.Config{Info: info, Store: store, Key: identitytest.Key(t, "n"),
		Listen: netip.MustParseAddrPort("127.0.0.1:0"), Record: n.take})
	if err != nil {
		t.Fatal(err)
	}
	n.begin(n.volume)
	return n
}

// What was read until the machine was up is its record, and a daemon that takes this
// one's place finds a machine that is up.
func TestStartupMakesARecord(t *testing.T) {
	file := filepath.Join(t.TempDir(), "boot.record")
	n := startBooting(t, file, 16)
	n.read(2*bootPiece, 100)
	n.read(0, bootPiece)
	if n.isUp() != bootphase.Booting {
		t.Fatal("up before its boot")
	}
	n.end(bootphase.Ready)
	n.read(5*bootPiece, 100)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := bootrecord.Decode(data, n.image.Infohash, n.image.RootFile().Size)
	if err != nil || len(r.Ranges) != 2 || r.Ranges[0].Start != 2*bootPiece/bootrecord.Unit {
		t.Errorf("record %v, %v", r.Ranges, err)
	}
	if n.isUp() != bootphase.Ready || !bytes.Contains([]byte(n.events.String()), []byte(`"kind":"up"`)) {
		t.Errorf("up %q, events %s", n.isUp(), n.events)
	}
	if again := startBooting(t, file, 16); again.isUp() != bootphase.Before {
		t.Errorf("up %q after a restart", again.isUp())
	}
}

// Records of peers are advice from anybody: what is none is dropped and said.
func TestStartupDropsWhatIsNoRecord(t *testing.T) {
	n := startBooting(t, filepath.Join(t.TempDir(), "boot.record"), 16)
	good := bootrecord.Record{Image: n.image.Infohash, Ranges: []bootrecord.Range{{Start: 0, Count: 8}}}
	other := good
	other.Image[0]++
	beyond := bootrecord.Record{Image: n.image.Infohash, Ranges: []bootrecord.Range{{Start: 1 << 30, Count: 1}}}
	var records []bootrecord.Record
	for _, data := range [][]byte{nil, []byte("no record"), other.Encode(), beyond.Encode(), bytes.Repeat([]byte{1}, 1<<20)} {
		records = n.expect(records, data)
	}
	if len(records) != 0 || bytes.Count([]byte(n.log.String()), []byte("boot record is not used")) != 5 {
		t.Errorf("%d records, log %s", len(records), n.log)
	}
	if records = n.expect(records, good.Encode()); len(records) != 1 {
		t.Error("a record was not taken")
	}
	for range 2 * maxRecords { // more than were asked for do not stop who brings them
		n.take(good.Encode())
	}
}
