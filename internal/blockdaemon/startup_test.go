package blockdaemon

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

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
	n.end(t.Context(), bootphase.Ready)
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

// A record that cannot be written is written when it can: runes wait for it, and nothing
// else does.
func TestARecordIsWrittenInTheEnd(t *testing.T) {
	dir, image := t.TempDir(), &manifest.Manifest{Files: []manifest.FileInfo{{Name: manifest.Root, Size: 16 * bootPiece}}}
	file := filepath.Join(dir, "full", "boot.record")
	synctest.Test(t, func(t *testing.T) {
		s := newStartup(image, file, slog.New(slog.DiscardHandler), event.NewLog("vfield", klog.Uptime))
		s.begin(&bootedDisk{began: time.Now()})
		done := make(chan struct{})
		go func() { s.end(t.Context(), bootphase.Ready); close(done) }()
		synctest.Wait()
		if s.isUp() != bootphase.Ready {
			t.Error("not up, for want of a file")
		}
		if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
			t.Error(err)
		}
		<-done
	})
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
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

// bootedDisk is a root disk that notes what is wanted of it, and when.
type bootedDisk struct {
	began  time.Time
	waits  bool
	held   bool // fetches nothing but what is read
	record []byte
	log    []string
}

func (d *bootedDisk) note(what string) {
	d.log = append(d.log, fmt.Sprintf("%v: %s", time.Since(d.began), what))
}

func (d *bootedDisk) AskRecords(n int)        { d.note(fmt.Sprintf("%d records", n)) }
func (d *bootedDisk) Expect(order []int)      { d.note(fmt.Sprintf("expect %v", order)) }
func (d *bootedDisk) SetRecord(record []byte) { d.record = record }
func (d *bootedDisk) Waits() bool             { return d.waits }

func (d *bootedDisk) DemandOnly(on bool) {
	if on != d.held {
		d.held = on
		d.note(fmt.Sprintf("held back %v", on))
	}
}

// Each boot ends, in the clock of this test: one whose init never says so, one in which
// nobody reads the root for minutes, and one whose reads wait for a network that is gone.
// Then there is a record, and what was held back is fetched; on a machine with time to
// spare that was so before.
func TestABootEndsThoughItsInitNeverSaysSo(t *testing.T) {
	const over = 5*time.Minute + bootphase.SampleEvery // since its first sample
	for _, c := range []struct {
		what       string
		idle       float64
		handedOver bool
		reads      bool
		waits      bool
		spare      time.Duration // from when on nothing is held back
		up         time.Duration
		why        bootphase.Reason
	}{
		{"it works and reads", 0, true, true, false, over, over, bootphase.Late},
		{"it works and does not read", 0, true, false, false, over, over, bootphase.Late},
		{"it reads now and then", 1, true, true, false, 5 * bootphase.SampleEvery, over, bootphase.Late},
		{"nobody reads, before its init", 1, false, false, false, 5 * bootphase.SampleEvery, over, bootphase.Late},
		{"nobody reads, after its init", 1, true, false, false, 5 * bootphase.SampleEvery, 10*time.Second + bootphase.SampleEvery, bootphase.Quiet},
		{"a read waits for ever", 1, true, false, true, over, over, bootphase.Late},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			events, image := &journal.Journal{}, &manifest.Manifest{Files: []manifest.FileInfo{{Name: manifest.Root, Size: 16 * bootPiece}}}
			stages, disk := filepath.Join(dir, "stages.json"), &bootedDisk{waits: c.waits}
			if c.handedOver {
				if err := os.WriteFile(stages, nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			var s *startup
			synctest.Test(t, func(t *testing.T) {
				s = newStartup(image, filepath.Join(dir, "boot.record"), slog.New(slog.DiscardHandler), event.NewLog("vfield", klog.Uptime, events))
				s.stages = stages
				disk.began = time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				s.begin(disk)
				s.follow(ctx, nil, func() float64 {
					if c.reads {
						s.read(3*bootPiece, 100)
					}
					return c.idle
				})
			})
			want := []string{"0s: held back true", "0s: 4 records", fmt.Sprintf("%v: held back false", c.spare),
				fmt.Sprintf("%v: 0 records", c.up), fmt.Sprintf("%v: expect []", c.up)}
			if !slices.Equal(disk.log, want) {
				t.Errorf("wanted of the disk\n got %q\nwant %q", disk.log, want)
			}
			if s.isUp() != c.why || !bytes.Contains([]byte(events.String()), []byte(c.why)) {
				t.Errorf("up %q, want %q; events %s", s.isUp(), c.why, events)
			}
			kept, err := os.ReadFile(s.file)
			if err != nil || !bytes.Equal(kept, disk.record) {
				t.Errorf("the record of %d bytes is not what the others get; %v", len(kept), err)
			}
			r, err := bootrecord.Decode(kept, image.Infohash, image.RootFile().Size)
			if err != nil || (len(r.Ranges) > 0) != c.reads {
				t.Errorf("record %v, %v", r.Ranges, err)
			}
		})
	}
}
