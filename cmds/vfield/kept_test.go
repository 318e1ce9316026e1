package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/disks"
	"viver.lan/internal/netbed/netbedtest"
	"viver.lan/internal/operator"
)

var errForged = errors.New("forged")

// words is a node's table of entries; a signature is "ok" or wrong.
type words struct{ operator.Table }

func (d *words) Network() string { return d.Table.Network }

func (d *words) Put(e operator.Override) error {
	return d.Accept(e, func(_, signature []byte) error {
		if string(signature) != "ok" {
			return errForged
		}
		return nil
	})
}

func entry(key, value string, sequence uint64) operator.Override {
	return operator.Override{Network: "n", Key: key, Value: value, Sequence: sequence, Signature: []byte("ok")}
}

// started is a block daemon from its start on, with a disk at dir.
func started(t *testing.T, dir string) (*kept, *words) {
	d := &words{operator.Table{Network: "n"}}
	return &kept{dir: dir, table: d, log: slog.New(slog.NewTextHandler(t.Output(), nil))}, d
}

func looks(t *testing.T, k *kept) {
	t.Helper()
	if err := k.look(); err != nil {
		t.Fatal(err)
	}
}

func says(t *testing.T, d *words, e operator.Override) {
	t.Helper()
	if err := d.Put(e); err != nil {
		t.Fatal(err)
	}
}

func TestEntriesOutliveTheLastMachine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "viver-data")
	k, d := started(t, dir)
	says(t, d, entry("name/a", "lab-1", 1))
	looks(t, k) // nothing is mounted yet
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	looks(t, k)
	says(t, d, entry("name/b", "lab-2", 1))
	looks(t, k)

	k, d = started(t, dir)
	says(t, d, entry("name/b", "lab-3", 2)) // a member knows better
	looks(t, k)
	if a, b := d.Value("name/a"), d.Value("name/b"); a != "lab-1" || b != "lab-3" {
		t.Errorf("after the restart the machines are called %q and %q", a, b)
	}
	says(t, d, entry("name/a", "", 2)) // taken back
	looks(t, k)

	k, d = started(t, dir)
	looks(t, k)
	says(t, d, entry("name/c", "lab-4", 1))
	if err := d.Put(entry("name/a", "lab-1", 1)); !errors.Is(err, operator.ErrOlder) {
		t.Errorf("what was taken back counts again: %v", err)
	}
	if b := d.Value("name/b"); b != "lab-3" {
		t.Errorf("after the second restart b is called %q", b)
	}
}

// TestOthersFilesOnTheDisk has the disk hold what we did not write.
func TestOthersFilesOnTheDisk(t *testing.T) {
	good, forged := entry("name/a", "lab-1", 1), operator.Override{Network: "n", Key: "name/b", Value: "evil", Sequence: 9, Signature: []byte("no")}
	text := operator.AppendAll(nil, []operator.Override{forged, good})
	for name, tc := range map[string]struct {
		text []byte
		want int // entries that count
	}{
		"a forged entry": {text, 1},
		"a damaged end":  {append(text, "garbage"...), 1},
		"cut off":        {text[:len(text)-1], 0},
		"garbage":        {[]byte("garbage"), 0},
		"nothing":        {nil, 0},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, keptFile), tc.text, 0o644); err != nil {
			t.Fatal(err)
		}
		k, d := started(t, dir)
		looks(t, k)
		if n := len(d.Entries()); n != tc.want {
			t.Errorf("%s: %d entries count, want %d", name, n, tc.want)
		}
		says(t, d, entry("name/c", "lab-2", 1))
		looks(t, k)
		again, d := started(t, dir)
		looks(t, again)
		if n := len(d.Entries()); n != tc.want+1 {
			t.Errorf("%s: %d entries are kept, want %d", name, n, tc.want+1)
		}
	}
}

// TestDiskOfAnotherNetwork takes a disk from its network to another, where entries
// are written, and back; then to one where it is full.
func TestDiskOfAnotherNetwork(t *testing.T) {
	dir := t.TempDir()
	visit := func(network string, sequence uint64, want string) {
		k, d := started(t, dir)
		d.Table.Network = network
		looks(t, k)
		if got := fmt.Sprint(d.Value("name/a"), len(d.Entries())); got != want {
			t.Errorf("in network %s the disk's entries are %s, want %s", network, got, want)
		}
		e := entry("name/a", network, sequence)
		e.Network = network
		says(t, d, e)
		looks(t, k)
	}
	visit("n", 1, "0")
	visit("other", 9, "0") // a greater number means nothing in n
	visit("n", 2, "n1")
	visit("third", 1, "0")
	visit("other", 10, "other1")
	visit("n", 3, "n1")
	file := filepath.Join(dir, keptFile)
	full := make([]byte, 0, maxKept)
	for n := uint64(1); len(full) <= maxKept-operator.MaxSize; n++ {
		full = operator.Override{Network: "other", Key: "name/a", Value: strings.Repeat("x", 256), Sequence: n, Signature: []byte("ok")}.Append(full)
	}
	for len(full) < maxKept-20 {
		full = operator.Override{Network: "other", Key: "name/a", Sequence: 1}.Append(full)
	}
	for _, text := range [][]byte{full, append(full, make([]byte, 100)...)} {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
		k, d := started(t, dir)
		says(t, d, entry("name/b", "lab-1", 1))
		if err := k.look(); !errors.Is(err, errKeptFull) {
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
	text := operator.AppendAll(nil, []operator.Override{entry("name/a", "lab-1", 1)})
	if err := errors.Join(os.WriteFile(file, text, 0o644), os.Symlink(file, filepath.Join(disk, keptFile)),
		os.Symlink(outside, filepath.Join(disk, "link"))); err != nil {
		t.Fatal(err)
	}
	k, d := started(t, disk)
	looks(t, k)
	if n := len(d.Entries()); n != 0 {
		t.Errorf("%d entries are read through a link", n)
	}
	says(t, d, entry("name/b", "lab-2", 1))
	looks(t, k)
	if got, err := os.ReadFile(file); err != nil || string(got) != string(text) {
		t.Errorf("a file that is not of the disk was written: %v", err)
	}
	k, d = started(t, filepath.Join(disk, "link"))
	says(t, d, entry("name/b", "lab-2", 1))
	looks(t, k)
	if _, err := os.Lstat(filepath.Join(outside, keptFile)); err == nil {
		t.Error("a folder that is a link was written to")
	}
}

// TestNetnsDiskOfAnotherNamespace keeps entries on a disk that is mounted where
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
	dir := savedData(other.Process.Pid)
	until(t, "the other process has its disk", func() bool { _, err := os.Stat(dir); return err == nil })
	if _, err := os.Stat(filepath.Join(control.SavedDir, disks.Marker)); err == nil {
		t.Fatal("we see that disk too")
	}
	k, d := started(t, dir)
	says(t, d, entry("name/a", "lab-1", 1))
	looks(t, k)
	k, d = started(t, dir)
	looks(t, k)
	if a := d.Value("name/a"); a != "lab-1" {
		t.Errorf("the machine is called %q", a)
	}
}
