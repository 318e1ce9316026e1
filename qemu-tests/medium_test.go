package scenarios

import (
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/event"
	"viver.lan/internal/manifest"
	"viver.lan/qemu-tests/harness"
)

// tinyAs makes an image of the tiny tree with one more file, and returns its directory.
func tinyAs(t *testing.T, name, makeFile string) string {
	t.Helper()
	dir := t.TempDir()
	shell(t, dir, "cp -a "+out(t, "trees", "tiny")+" tree && mkdir -p tree/srv && "+makeFile)
	image := filepath.Join(dir, name)
	viver(t, "image", "build", filepath.Join(dir, "tree"), "-o", image, "--modules", "none", "--level", "1")
	shell(t, dir, "rm -r tree")
	return image
}

// One machine, one medium, nobody else on the network. The medium has two images, and
// its settings say that the second starts by itself. The stick has room for saved data,
// which the machine uses although the disk is its medium:
//
//	[ CD or USB stick ]──[ first node ]──┤ lan
func TestMediumBoots(t *testing.T) {
	t.Parallel()
	second := tinyAs(t, "second", "head -c 1000 /dev/urandom >tree/srv/second")
	iso := mediumOfAll(t, []string{out(t, "tiny"), second}, "[boot]\ndefault = \"second\"\n")
	size := readManifest(t, filepath.Join(second, manifest.File)).RootFile()
	stick := filepath.Join(t.TempDir(), "stick.img")
	viver(t, "medium", "write", iso, stick, "--data", "256M")
	for _, firmware := range []harness.Firmware{harness.BIOS, harness.UEFI} {
		for _, device := range []harness.Device{harness.CD, harness.USB} {
			t.Run(string(firmware)+"/"+string(device), func(t *testing.T) {
				lab := harness.New(t, harness.Options{})
				c := harness.Config{Name: "first", Firmware: firmware, NICs: []harness.NIC{{LAN: segment(t, lab)}}}
				if device == harness.CD {
					c.CDROM = iso
				} else {
					c.USBStick = stick
				}
				vm := start(t, lab, c)
				name := readyFrom(t, vm, strings.ToUpper(string(firmware)+", "+string(device)), emptyNetwork)
				if mac := strings.ReplaceAll(vm.MAC(0), ":", ""); name != "node-"+mac {
					t.Errorf("hostname %q does not come from MAC %s", name, vm.MAC(0))
				}
				if got := digest(t, vm, "/dev/nbd0", size.Size); got != size.SHA256.String() {
					t.Errorf("root disk reads as %s, the image is %s", got, size.SHA256)
				}
				root := wait(t, vm, "the root stage", func(s event.Stage) bool { return s.Name == "root" && s.State != event.Started })
				if onStick := strings.Contains(root.Detail, "; on sd"); onStick != (device == harness.USB) {
					t.Errorf("from a %s the root is %q", device, root.Detail)
				}
				if mounts := run(t, vm, "@read", "/proc/mounts"); !strings.Contains(mounts, "overlay / overlay") && !strings.Contains(mounts, " / overlay") {
					t.Errorf("the root is no overlay:\n%s", mounts)
				}
			})
		}
	}
}

// A medium with a root disk of more than 4 GiB, which no single extent of ISO 9660 holds:
// BIOS boots it as a stick, UEFI as a CD, and a node with 1 GB of memory reads what lies
// beyond. It makes and reads 5 GB several times, so only "./build.sh test full" runs it.
//
//	[ stick or CD, 5 GB ]──[ first, 1 GB ]──┤ lan
//	                       [ node, 1 GB  ]──┤
func TestFullMediumLargerThan4GiB(t *testing.T) {
	// Packing finds nothing that is twice within a block.
	const blob = "head -c 64M /dev/urandom >part && for i in $(seq 80); do cat part; done >tree/srv/blob && rm part && head -c 1M /dev/urandom >tree/srv/zz-behind && cp tree/srv/zz-behind behind"
	image := tinyAs(t, "large", blob)
	root := readManifest(t, filepath.Join(image, manifest.File)).RootFile()
	if root.Size < 5<<30 {
		t.Fatalf("the root disk has %d bytes, want 5 GiB that do not compress", root.Size)
	}
	const behind = "/srv/zz-behind"
	want := sum(t, filepath.Join(filepath.Dir(image), "behind"))
	iso := mediumOf(t, image, "")
	for _, c := range []harness.Config{
		{Firmware: harness.BIOS, USBStick: iso},
		{Firmware: harness.UEFI, CDROM: iso},
	} {
		lab := harness.New(t, harness.Options{VMs: 2})
		lan := segment(t, lab)
		c.Name, c.Memory, c.NICs = "first", 1024, []harness.NIC{{LAN: lan}}
		first := start(t, lab, c)
		serving(t, first)
		node := start(t, lab, harness.Config{Name: "node", Firmware: c.Firmware, Memory: 1024, NICs: []harness.NIC{{LAN: lan}}})
		ready(t, node)
		for _, vm := range []*harness.VM{first, node} {
			if got := digest(t, vm, behind, 1<<20); got != want {
				t.Errorf("%s, %s: %s reads as %s, want %s", c.Firmware, vm.Name(), behind, got, want)
			}
			vm.PowerCut()
		}
	}
}
