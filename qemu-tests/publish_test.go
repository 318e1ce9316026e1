package scenarios

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/manifest"
	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/media"
)

// contents are the files below dir, as media.DiskSpec takes them.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A running network takes another image: who runs goes on with the old one, who boots has
// the new one, also when the medium with the old one boots it. Then it is taken back.
//
//	[CD, old image]──[ first ]┬──┤ lan
//	                          └── vda ext4, the new image
//	                 [ node ]────┤
//	                 [ again ]───┤
func TestPublishedImageIsBooted(t *testing.T) {
	t.Parallel()
	old := describe(t, "tiny")
	dir := t.TempDir()
	shell(t, dir, "cp -a "+out(t, "trees", "tiny")+" tree && echo the next one >tree/etc/motd")
	image := filepath.Join(dir, "next")
	viver(t, "image", "build", filepath.Join(dir, "tree"), "-o", image, "--modules", "none")
	next := readManifest(t, filepath.Join(image, manifest.File))

	lab := harness.New(t, harness.Options{})
	lan := segment(t, lab)
	first := start(t, lab, harness.Config{Name: "first", CDROM: medium(t, "tiny", ""), NICs: []harness.NIC{{LAN: lan}},
		Disks: []string{disk(t, "next.img", media.DiskSpec{FS: "ext4", WholeDisk: true, Files: contents(t, image)})}})
	serving(t, first)
	node := start(t, lab, harness.Config{Name: "node", NICs: []harness.NIC{{LAN: lan}}})
	ready(t, node)

	giveKey(t, first)
	run(t, first, "mkdir", "-p", "/run/next")
	run(t, first, "mount", "-r", "-t", "ext4", "/dev/vda", "/run/next")
	said := run(t, first, nodeViver, "image", "publish", "/run/next", "--socket", control.Socket, "--key", ownersKey)
	t.Log(said)
	for _, vm := range []*harness.VM{first, node} {
		eventually(t, vm, "the new image to be what machines boot", func() bool {
			s := status(t, vm)
			return s.Offered() == next.Infohash && s.Infohash == old.Infohash
		})
		if got := digest(t, vm, "/dev/nbd0", old.RootFile().Size); got != old.RootFile().SHA256.String() {
			t.Errorf("%s reads its root as %s, want the old one, %s", vm.Name(), got, old.RootFile().SHA256)
		}
	}
	t.Logf("the node keeps %+v", status(t, node).Published.Second)

	node.PowerCut()
	again := start(t, lab, harness.Config{Name: "again", NICs: []harness.NIC{{LAN: lan}}})
	ready(t, again)
	if got := run(t, again, "@read", "/etc/motd"); !strings.Contains(got, "the next one") {
		t.Errorf("the machine that booted has /etc/motd %q", got)
	}
	if got := digest(t, again, "/dev/nbd0", next.RootFile().Size); got != next.RootFile().SHA256.String() {
		t.Errorf("it reads its root as %s, want the new one, %s", got, next.RootFile().SHA256)
	}
	eventually(t, again, "both images to be here, and one network", func() bool {
		s := status(t, again)
		p := s.Published
		return p != nil && p.Second != nil && p.Second.Image == old.Infohash && p.Second.Have == p.Second.Pieces && s.Network == status(t, first).Network
	})
	giveKey(t, again)
	t.Log(run(t, again, nodeViver, "image", "rollback", "--socket", control.Socket, "--key", ownersKey))
	eventually(t, first, "the old image to be what machines boot", func() bool {
		s := status(t, first)
		return s.Offered() == old.Infohash
	})
}
