package scenarios

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/disks"
	"viver.lan/internal/event"
	"viver.lan/internal/operator"
	"viver.lan/internal/sign"
	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/media"
)

// disk makes a raw image with a file system that holds the given files.
func disk(t *testing.T, name string, spec media.DiskSpec) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	spec.Size = 128 << 20
	if err := media.NewDisk(t.Context(), path, spec); err != nil {
		t.Fatal(err)
	}
	return path
}

// ownerKey is the secret key with which build.sh had the images signed.
func ownerKey(t *testing.T) string {
	t.Helper()
	dir, err := os.UserConfigDir()
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(dir, "viver", sign.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	return string(key)
}

func sum(t *testing.T, path string) string {
	t.Helper()
	digest, err := media.SHA256(path)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// A machine with three disks, of which two are ours to write, loses its power when it is
// the only one. It may keep little of the image in memory, so the pieces go to the cache
// disk:
//
//	[ CD ]──[ vm ]┬── vda ext4, folder viver-data
//	              ├── vdb ext4, somebody's files
//	              └── vdc ext4, folder viver-cache
//
// Then the medium is in another machine, and the network as it was before:
//
//	[ CD ]──[ first ]──┤ lan
//	vda vdb vdc─[ vm ]─┤
func TestSavedDataComesBack(t *testing.T) {
	t.Parallel()
	harness.Need(t, "mkfs.ext4", "mkswap", "dumpe2fs")
	marked := disk(t, "marked.img", media.DiskSpec{FS: "ext4", Files: map[string]string{"viver-data/": ""}})
	foreign := disk(t, "foreign.img", media.DiskSpec{FS: "ext4", Files: map[string]string{"home/letter": "dear diary"}})
	cache := disk(t, "cache.img", media.DiskSpec{FS: "ext4", Files: map[string]string{disks.CacheMarker + "/": ""}})
	before := sum(t, foreign)

	lab := harness.New(t, harness.Options{})
	lan, iso := segment(t, lab), medium(t, "tiny", littleMemory)
	c := harness.Config{Name: "vm", CDROM: iso, Disks: []string{marked, foreign, cache}, Boot: []harness.Device{harness.CD}, NICs: []harness.NIC{{LAN: lan}}}
	vm := start(t, lab, c)
	ready(t, vm)
	const file, text = "/etc/kept-by-the-test", "still here"
	write(t, vm, file, text)
	// The operator's word is kept too, though nobody is left to remember it.
	giveKey(t, vm)
	run(t, vm, nodeViver, "node", "set", vm.MAC(0), "--name", "lab-07", "--key", ownersKey)
	const livePath = "/run/live" // a reboot forgets it
	changes(t, vm, 1, "file", "put", file, livePath)
	live := status(t, vm).Live
	eventually(t, vm, "both to be on the disk", func() bool {
		entries, err := vm.Run(t.Context(), "@read", control.SavedDir+"/"+disks.Marker+"/"+operator.SavedFile)
		return err == nil && strings.Contains(entries, "lab-07") && strings.Contains(entries, live.Digest.String())
	})
	// So are its key, by which the others know it, and the network's name.
	id := func() string {
		for line := range strings.Lines(run(t, vm, nodeViver, "node", "list")) {
			if f := strings.Fields(line); strings.Contains(line, vm.MAC(0)) {
				return f[len(f)-1]
			}
		}
		return ""
	}
	was := id()
	run(t, vm, "@drop-caches") // syncs
	vm.PowerCut()
	first := start(t, lab, harness.Config{Name: "first", CDROM: iso, NICs: []harness.NIC{{LAN: lan}}})
	serving(t, first)
	c.CDROM, c.Boot = "", []harness.Device{harness.Network}
	vm = start(t, lab, c)
	ready(t, vm)
	if _, err := vm.WaitConsole(t.Context(), `pieces found in the store hashed.*found=[1-9]`); err != nil {
		t.Error(err)
	}
	if got := run(t, vm, "@read", file); got != text {
		t.Errorf("after the power failure %s holds %q, want %q", file, got, text)
	}
	for _, m := range []*harness.VM{vm, first} {
		sees(t, m, live.Version, map[string]string{livePath: text})
		eventually(t, m, "the name to be known again", func() bool { return strings.Contains(run(t, m, nodeViver, "node", "list"), "lab-07") })
	}
	if is := id(); is != was || is == "" {
		t.Errorf("after the power failure the node is %q, it was %q", is, was)
	}
	vm.PowerCut()
	if after := sum(t, foreign); after != before {
		t.Errorf("the disk with no marker was written: SHA-256 %s before, %s after", before, after)
	}
}

// A marked disk that cannot carry an overlay, and one that belongs to a system
// that sleeps, are said so and not used.
func TestAMarkedDiskThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	harness.Need(t, "mkfs.vfat", "mmd")
	fat := disk(t, "fat.img", media.DiskSpec{FS: "vfat", Files: map[string]string{"viver-data/": ""}})
	asleep := disk(t, "asleep.img", media.DiskSpec{FS: "swap", Hibernated: true})
	before := []string{sum(t, fat), sum(t, asleep)}
	lab := harness.New(t, harness.Options{})
	vm := start(t, lab, harness.Config{Name: "first", CDROM: medium(t, "tiny", ""), Disks: []string{fat, asleep},
		Boot: []harness.Device{harness.CD}, NICs: []harness.NIC{{LAN: segment(t, lab)}}})
	ready(t, vm)
	found := wait(t, vm, "the disks stage", func(s event.Stage) bool { return s.Name == "disks" && s.State != event.Started })
	root := wait(t, vm, "the root stage", func(s event.Stage) bool { return s.Name == "root" && s.State == event.Done })
	if !strings.Contains(found.Detail, "vda") {
		t.Errorf("the marker on vda was not found: %q", found.Detail)
	}
	if !strings.Contains(root.Detail, "memory") || !strings.Contains(root.Detail, "vda1: ") {
		t.Errorf("the root stage does not say why it works in memory: %q", root.Detail)
	}
	vm.PowerCut()
	for i, path := range []string{fat, asleep} {
		if after := sum(t, path); after != before[i] {
			t.Errorf("%s cannot be used and was written all the same", filepath.Base(path))
		}
	}
}
