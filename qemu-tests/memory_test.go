package scenarios

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/event"
	"viver.lan/internal/manifest"
	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/media"
)

// littleMemory lets a machine keep 16 MiB of pieces, the least there is.
const littleMemory = "[vfield]\nmemory = \"1%\"\n"

// spoiler changes each answer by HTTP that says it has so many bytes, in a way that
// TCP does not notice: two words of it change places.
func spoiler(size int64) func(frame []byte) {
	header := fmt.Appendf(nil, "\r\nContent-Length: %d\r\n", size)
	spoil := false
	return func(frame []byte) {
		const ip, tcp = 14, 14 + 20
		if len(frame) < tcp+20 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 || frame[ip+9] != 6 || binary.BigEndian.Uint16(frame[tcp:]) != 80 {
			return
		}
		if bytes.Contains(frame, header) {
			spoil = true
			return
		}
		// The last two whole words; packed data is different everywhere.
		if at := len(frame)&^1 - 4; spoil && len(frame) > 1000 && !bytes.Equal(frame[at:at+2], frame[at+2:at+4]) {
			word := [2]byte(frame[at:])
			copy(frame[at:], frame[at+2:at+4])
			copy(frame[at+2:], word[:])
			spoil = false
		}
	}
}

// A node that cannot hold the image needs its first node, and says so. While
// the cable is out its reads wait, and say so; then they go on. Drivers that are
// not the owner's are refused, and so its disk is not looked into.
//
//	[ CD ]──[ first ]──┤ lan (drivers.img is spoiled)
//	[ext4]──[ node  ]──┤
func TestNodeSmallerThanItsImage(t *testing.T) {
	t.Parallel()
	image := describe(t, "tiny")
	root := image.RootFile()
	drivers, _, _ := image.Lookup(manifest.Drivers)
	lab := harness.New(t, harness.Options{})
	lan := segment(t, lab)
	first := start(t, lab, harness.Config{Name: "first", CDROM: medium(t, "tiny", littleMemory), NICs: []harness.NIC{{LAN: lan, Mangle: spoiler(drivers.Size)}}})
	serving(t, first)
	node := start(t, lab, harness.Config{Name: "node", Disks: []string{disk(t, "ext4.img", media.DiskSpec{FS: "ext4"})}, NICs: []harness.NIC{{LAN: lan}}})
	// The cable is out for a while before the node has read its root.
	wait(t, node, "its root disk", func(event.Attached) bool { return true })
	if err := first.SetLink(t.Context(), 0, false); err != nil {
		t.Fatal(err)
	}
	wait(t, node, "a read that waits", func(w event.Waiting) bool { return w.Reason != "" })
	if err := first.SetLink(t.Context(), 0, true); err != nil {
		t.Fatal(err)
	}
	ready(t, node)
	said := wait(t, node, "the drivers stage", func(s event.Stage) bool { return s.Name == "drivers" && s.State != event.Started })
	if said.State != event.Degraded || !strings.Contains(said.Detail, "refused: drivers.img") || !strings.Contains(said.Detail, "ask for ext4") {
		t.Errorf("spoiled drivers: %s, %q", said.State, said.Detail)
	}
	eventually(t, node, "viver status to say that the first node must stay", func() bool { return status(t, node).Independence.Short })
	if got := digest(t, node, "/dev/nbd0", root.Size); got != root.SHA256.String() {
		t.Errorf("the node reads its root as %s, want %s", got, root.SHA256)
	}
	fillsUp(t, node)
}

// fillsUp has a machine write more files than its memory is for: it is told before, no
// more is written than fits, and with less it goes on.
func fillsUp(t *testing.T, vm *harness.VM) {
	t.Helper()
	const big = "/var/big"
	run(t, vm, "mkdir", "-p", "/var")
	if text, err := vm.Run(t.Context(), "dd", "if=/dev/zero", "of="+big, "bs=1M"); err == nil {
		t.Errorf("there is no end to what is written: %s", text)
	}
	eventually(t, vm, "the console to say how full it is", func() bool {
		return strings.Contains(vm.Console().Text(), "the place for written files fills")
	})
	if text := run(t, vm, nodeViver, "doctor", "files"); !strings.Contains(text, big) {
		t.Errorf("%s is not among the largest files:\n%s", big, text)
	}
	run(t, vm, "rm", big)
	write(t, vm, "/var/small", "there is room again")
}

// An image of 2 GB on a node with 512 MB of memory: nothing fits, everything
// is read twice and right. It takes about a quarter of an hour, so only
// "./build.sh test full" runs it.
//
//	[ CD, 2 GB ]──[ first, 1 GB ]──┤ lan
//	              [ node, 512 MB ]─┤
func TestFullLargeImageInLittleMemory(t *testing.T) {
	dir := t.TempDir()
	shell(t, dir, "cp -a "+out(t, "trees", "tiny")+" tree && mkdir -p tree/srv && head -c 2000000000 /dev/urandom >tree/srv/blob")
	image := filepath.Join(dir, "large")
	viver(t, "image", "build", filepath.Join(dir, "tree"), "-o", image, "--modules", "none", "--level", "1")
	m := readManifest(t, filepath.Join(image, manifest.File))
	root := m.RootFile()
	if root.Size < 2e9 {
		t.Fatalf("the root disk has %d bytes, want 2 GB that do not compress", root.Size)
	}

	lab := harness.New(t, harness.Options{VMs: 2})
	lan := segment(t, lab)
	first := start(t, lab, harness.Config{Name: "first", Memory: 1024, CDROM: mediumOf(t, image, ""), NICs: []harness.NIC{{LAN: lan}}})
	serving(t, first)
	node := start(t, lab, harness.Config{Name: "node", Memory: 512, NICs: []harness.NIC{{LAN: lan}}})
	ready(t, node)
	for range 2 {
		if got := digest(t, node, "/dev/nbd0", root.Size); got != root.SHA256.String() {
			t.Fatalf("the node reads its root as %s, want %s", got, root.SHA256)
		}
	}
	if log := node.Console().Text(); strings.Contains(log, "Out of memory") || strings.Contains(log, "I/O error") {
		t.Errorf("the console of the small node says:\n%s", log)
	}
}
