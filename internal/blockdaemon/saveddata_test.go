package blockdaemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"viver.lan/internal/control"
	"viver.lan/internal/disks"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/livestore"
	"viver.lan/internal/netbed/netbedtest"
	"viver.lan/internal/notify"
	"viver.lan/internal/operator"
)

var errForged = errors.New("forged")

// table is a node's table of overrides; a signature is "ok" or wrong.
type table struct {
	notify.Notifier
	mu sync.Mutex // guards Table
	operator.Table
}

func (o *table) Network() string { return o.Table.Network }

func (o *table) Overrides() []operator.Override {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Table.Overrides()
}

func (o *table) Put(e operator.Override) error {
	defer o.Notify()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Accept(e, func(_, signature []byte) error {
		if string(signature) != "ok" {
			return errForged
		}
		return nil
	})
}

func override(key, value string, sequence uint64) operator.Override {
	return operator.Override{Network: "n", Key: key, Value: value, Sequence: sequence, Signature: []byte("ok")}
}

// started is a block daemon from its start on, with a disk at dir.
func started(t *testing.T, dir string) (*savedData, *table) {
	o := &table{Table: operator.Table{Network: "n"}}
	return &savedData{dir: dir, overrides: o, log: slog.New(slog.NewTextHandler(t.Output(), nil))}, o
}

func syncs(t *testing.T, d *savedData) {
	t.Helper()
	if err := d.sync(); err != nil {
		t.Fatal(err)
	}
}

func sets(t *testing.T, o *table, e operator.Override) {
	t.Helper()
	if err := o.Put(e); err != nil {
		t.Fatal(err)
	}
}

func TestOverridesOutliveTheLastMachine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "viver-data")
	d, o := started(t, dir)
	sets(t, o, override("name/a", "lab-1", 1))
	syncs(t, d) // nothing is mounted yet
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	syncs(t, d)
	sets(t, o, override("name/b", "lab-2", 1))
	syncs(t, d)

	d, o = started(t, dir)
	sets(t, o, override("name/b", "lab-3", 2)) // a member knows better
	syncs(t, d)
	if a, b := o.Value("name/a"), o.Value("name/b"); a != "lab-1" || b != "lab-3" {
		t.Errorf("after the restart the machines are called %q and %q", a, b)
	}
	sets(t, o, override("name/a", "", 2)) // taken back
	syncs(t, d)

	d, o = started(t, dir)
	syncs(t, d)
	sets(t, o, override("name/c", "lab-4", 1))
	if err := o.Put(override("name/a", "lab-1", 1)); !errors.Is(err, operator.ErrOlder) {
		t.Errorf("what was taken back counts again: %v", err)
	}
	if b := o.Value("name/b"); b != "lab-3" {
		t.Errorf("after the second restart b is called %q", b)
	}
}

// The disk keeps the live layer that it has until it has the next one.
func TestALiveLayerIsSavedBeforeItsOverride(t *testing.T) {
	dir := t.TempDir()
	live := func(layer string, sequence uint64) operator.Override {
		return override(livelayer.Key, livelayer.PointTo([]byte(layer)).String(), sequence)
	}
	has := func(layer string) {
		t.Helper()
		file := livestore.Path(filepath.Join(dir, livestore.SavedDir), livelayer.PointTo([]byte(layer)).Digest)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(layer), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	d, o := started(t, dir)
	saved := func(want uint64, awaits bool) {
		t.Helper()
		syncs(t, d)
		text, err := os.ReadFile(filepath.Join(dir, overridesFile))
		if err != nil {
			t.Fatal(err)
		}
		overrides, damage := operator.ParseAll(text, len(text))
		_, got, err := livestore.Current(overrides, livelayer.Key)
		if err = errors.Join(damage, err); got != want || d.awaits != awaits || err != nil {
			t.Errorf("the disk has version %d, %v, want %d; another one is awaited: %v", got, err, want, d.awaits)
		}
	}
	sets(t, o, override("name/a", "lab-1", 1))
	sets(t, o, live("one", 1))
	saved(0, true)
	has("one")
	saved(1, false)
	sets(t, o, live("two", 2))
	saved(1, true)

	d, o = started(t, dir) // with a member that knows the newer one, too
	sets(t, o, live("two", 2))
	sets(t, o, override("name/z", "lab-9", 1))
	saved(1, true)
	has("two")
	saved(2, false)
	sets(t, o, override(livelayer.Key, "", 3)) // taken back
	saved(3, false)
	if a, z := o.Value("name/a"), o.Value("name/z"); a != "lab-1" || z != "lab-9" {
		t.Errorf("names are %q and %q", a, z)
	}
}

// An override is on the disk as soon as it is set, and what follows soon after in one go.
func TestOverridesAreSavedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, o := started(t, t.TempDir())
		file := filepath.Join(d.dir, overridesFile)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.run(ctx) }()
		time.Sleep(saveEvery)
		saved := func() string {
			synctest.Wait()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all, _ := operator.ParseAll(text, len(text))
			return all[0].Value
		}
		sets(t, o, override("name/a", "lab-1", 1))
		if got := saved(); got != "lab-1" {
			t.Errorf("at once %s is saved", got)
		}
		for n := range 100 {
			sets(t, o, override("name/a", fmt.Sprintf("lab-%d", n+2), uint64(n+2)))
			if got := saved(); got != "lab-1" {
				t.Fatalf("too soon %s is saved", got)
			}
		}
		time.Sleep(saveEvery)
		if got := saved(); got != "lab-101" {
			t.Errorf("a little later %s is saved", got)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestOthersFilesOnTheDisk has the disk hold what we did not write.
func TestOthersFilesOnTheDisk(t *testing.T) {
	good, forged := override("name/a", "lab-1", 1), operator.Override{Network: "n", Key: "name/b", Value: "evil", Sequence: 9, Signature: []byte("no")}
	text := operator.AppendAll(nil, []operator.Override{forged, good})
	for name, tc := range map[string]struct {
		text []byte
		want int // overrides that count
	}{
		"a forged entry": {text, 1},
		"a damaged end":  {append(text, "garbage"...), 1},
		"cut off":        {text[:len(text)-1], 0},
		"garbage":        {[]byte("garbage"), 0},
		"nothing":        {nil, 0},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, overridesFile), tc.text, 0o644); err != nil {
			t.Fatal(err)
		}
		d, o := started(t, dir)
		syncs(t, d)
		if n := len(o.Overrides()); n != tc.want {
			t.Errorf("%s: %d overrides count, want %d", name, n, tc.want)
		}
		sets(t, o, override("name/c", "lab-2", 1))
		syncs(t, d)
		again, o := started(t, dir)
		syncs(t, again)
		if n := len(o.Overrides()); n != tc.want+1 {
			t.Errorf("%s: %d overrides are saved, want %d", name, n, tc.want+1)
		}
	}
}

// TestDiskOfAnotherNetwork takes a disk from its network to another, where overrides
// are set, and back; then to one where it is full.
func TestDiskOfAnotherNetwork(t *testing.T) {
	dir := t.TempDir()
	visit := func(network string, sequence uint64, want string) {
		d, o := started(t, dir)
		o.Table.Network = network
		syncs(t, d)
		if got := fmt.Sprint(o.Value("name/a"), len(o.Overrides())); got != want {
			t.Errorf("in network %s the disk's overrides are %s, want %s", network, got, want)
		}
		e := override("name/a", network, sequence)
		e.Network = network
		sets(t, o, e)
		syncs(t, d)
	}
	visit("n", 1, "0")
	visit("other", 9, "0") // a greater number means nothing in n
	visit("n", 2, "n1")
	visit("third", 1, "0")
	visit("other", 10, "other1")
	visit("n", 3, "n1")
	file := filepath.Join(dir, overridesFile)
	full := make([]byte, 0, maxOverrides)
	for n := uint64(1); len(full) <= maxOverrides-operator.MaxSize; n++ {
		full = operator.Override{Network: "other", Key: "name/a", Value: strings.Repeat("x", 256), Sequence: n, Signature: []byte("ok")}.Append(full)
	}
	for len(full) < maxOverrides-20 {
		full = operator.Override{Network: "other", Key: "name/a", Sequence: 1}.Append(full)
	}
	for _, text := range [][]byte{full, append(full, make([]byte, 100)...)} {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		d, o := started(t, dir)
		sets(t, o, override("name/b", "lab-1", 1))
		if err := d.sync(); !errors.Is(err, errDiskFull) {
			t.Errorf("on a full disk: %v", err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != string(text) {
			t.Errorf("the full file was changed: %v", err)
		}
	}
}

// TestLinksOnTheDisk: what is not of the disk is neither read nor written.
func TestLinksOnTheDisk(t *testing.T) {
	disk, outside := t.TempDir(), t.TempDir()
	file := filepath.Join(outside, "file")
	text := operator.AppendAll(nil, []operator.Override{override("name/a", "lab-1", 1)})
	if err := errors.Join(os.WriteFile(file, text, 0o644), os.Symlink(file, filepath.Join(disk, overridesFile)),
		os.Symlink(outside, filepath.Join(disk, "link"))); err != nil {
		t.Fatal(err)
	}
	d, o := started(t, disk)
	syncs(t, d)
	if n := len(o.Overrides()); n != 0 {
		t.Errorf("%d overrides are read through a link", n)
	}
	sets(t, o, override("name/b", "lab-2", 1))
	syncs(t, d)
	if got, err := os.ReadFile(file); err != nil || string(got) != string(text) {
		t.Errorf("a file that is not of the disk was written: %v", err)
	}
	d, o = started(t, filepath.Join(disk, "link"))
	sets(t, o, override("name/b", "lab-2", 1))
	syncs(t, d)
	if _, err := os.Lstat(filepath.Join(outside, overridesFile)); err == nil {
		t.Error("a folder that is a link was written to")
	}
}

// TestNetnsDiskOfAnotherNamespace saves overrides on a disk that is mounted where
// only another process sees it, as the root stage mounts it for process 1.
func TestNetnsDiskOfAnotherNamespace(t *testing.T) {
	if !netbedtest.Enter(t) {
		return
	}
	other := exec.Command("unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /run && mkdir -p "+
		filepath.Join(control.SavedDir, disks.Marker)+" && exec sleep 600")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	dir := savedDataDir(other.Process.Pid)
	eventually(t, "the other process has its disk", func() bool { _, err := os.Stat(dir); return err == nil })
	if _, err := os.Stat(filepath.Join(control.SavedDir, disks.Marker)); err == nil {
		t.Fatal("we see that disk too")
	}
	d, o := started(t, dir)
	sets(t, o, override("name/a", "lab-1", 1))
	syncs(t, d)
	d, o = started(t, dir)
	syncs(t, d)
	if a := o.Value("name/a"); a != "lab-1" {
		t.Errorf("the machine is called %q", a)
	}
}
