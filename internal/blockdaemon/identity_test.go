package blockdaemon

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/disks"
	"viver.lan/internal/ether"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/identity/keyfile"
)

// A restarted daemon is the same node, and what it says is newer than what it
// said before.
func TestIdentityOutlivesTheDaemon(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	file, sequence := filepath.Join(dir, "key"), filepath.Join(dir, "sequence")
	first, start, err := openIdentity(file, sequence, log)
	if err != nil {
		t.Fatal(err)
	}
	again, next, err := openIdentity(file, sequence, log)
	if err != nil || again.ID() != first.ID() || next <= start {
		t.Errorf("%s at start %d became %s at %d, %v", first, start, again, next, err)
	}
	// A file that cannot be used stops no node.
	if err := os.WriteFile(file, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if other, _, err := openIdentity(file, sequence, log); err != nil || other.IsZero() || other.ID() == first.ID() {
		t.Errorf("with a damaged file: %v, %v", other, err)
	}
}

// The disk keeps one key for each machine, so that a copy of it makes another
// machine no other node; and the name of the network.
func TestIdentityOnTheDisk(t *testing.T) {
	dir := t.TempDir()
	boot := func(name string, mac ether.MAC, start uint64) *savedData {
		d, _ := started(t, dir)
		d.key, d.mac, d.start = identitytest.Key(t, name), mac, start
		syncs(t, d)
		return d
	}
	one, two := ether.MAC{0x52, 0x54, 5: 1}, ether.MAC{0x52, 0x54, 5: 2}
	boot("a", one, 7)
	boot("b", two, 8)
	boot("late", one, 9) // its key was made before the disk was seen
	for mac, want := range map[ether.MAC]string{one: "a", two: "b"} {
		key, err := keyfile.Read(filepath.Join(dir, keyfile.NameFor(mac)))
		if err != nil || key.ID() != identitytest.ID(want) {
			t.Errorf("%s: %v, %v; want that of %s", mac, key, err, want)
		}
	}
	stored := func() string {
		text, _ := os.ReadFile(keyfile.SequenceFor(filepath.Join(dir, keyfile.NameFor(one))))
		return strings.TrimSpace(string(text))
	}
	if n := stored(); n != "7" {
		t.Errorf("start %q, want 7", n)
	}
	boot("a", one, 10)
	if n := stored(); n != "10" {
		t.Errorf("start %q, want 10", n)
	}
	text, err := os.ReadFile(filepath.Join(dir, disks.NetworkNameFile))
	if err != nil || strings.TrimSpace(string(text)) != "n" {
		t.Errorf("network %q, %v", text, err)
	}
}
