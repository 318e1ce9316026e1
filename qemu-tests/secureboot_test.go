package scenarios

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"viver.lan/internal/event"
	"viver.lan/internal/manifest"
	"viver.lan/internal/nics"
	"viver.lan/qemu-tests/harness"
)

// Every way into the network while Secure Boot is on, and HTTP Boot without it:
//
//	[ CD ]──[ first, Secure Boot ]──────┤
//	        [ a, HTTP Boot ]────────────┤ lan
//	        [ b, Secure Boot, PXE ]─────┤
//	        [ c, Secure Boot, HTTP Boot ]┤
//
// The machines boot one after another. While a is up, it is its turn to give b
// the kernel and the initramfs.
func TestSecureBoot(t *testing.T) {
	t.Parallel()
	image := describe(t, "tiny").RootFile()
	lab := harness.New(t, harness.Options{})
	lan := segment(t, lab)
	first := start(t, lab, harness.Config{Name: "first", Firmware: harness.SecureUEFI, CDROM: medium(t, "tiny", ""), NICs: []harness.NIC{{LAN: lan}}})
	readyFrom(t, first, "UEFI, Secure Boot, CD", emptyNetwork)
	locked(t, first)
	serving(t, first)
	source := "" // of the next one's kernel; any is right if empty
	for _, c := range []struct {
		client string
		harness.Config
	}{
		{"UEFI, HTTP Boot", harness.Config{Name: "a", Firmware: harness.UEFI, HTTPBoot: true}},
		{"UEFI, Secure Boot, PXE", harness.Config{Name: "b", Firmware: harness.SecureUEFI}},
		{"UEFI, Secure Boot, HTTP Boot", harness.Config{Name: "c", Firmware: harness.SecureUEFI, HTTPBoot: true}},
	} {
		c.NICs = []harness.NIC{{LAN: lan, NoROM: true}}
		vm := start(t, lab, c.Config)
		readyFrom(t, vm, c.client, emptyNetwork)
		if c.Firmware == harness.SecureUEFI {
			locked(t, vm)
		}
		who := wait(t, vm, "its name", func(event.Node) bool { return true })
		if who.BootedBy == "medium" || who.Firmware != "uefi" {
			t.Errorf("%s: %+v", c.Name, who)
		}
		if got := digest(t, vm, "/dev/nbd0", image.Size); got != image.SHA256.String() {
			t.Errorf("%s reads its root as %s, the image is %s", c.Name, got, image.SHA256)
		}
		// GRUB tells the kernel where it came from.
		if line := run(t, vm, "@read", "/proc/cmdline"); !strings.HasPrefix(line, "BOOT_IMAGE=(http,"+source) {
			t.Errorf("%s fetched its kernel from elsewhere than %q: %s", c.Name, source, line)
		}
		source = ""
		if c.Name == "a" { // it stays, and holds everything
			wait(t, first, "the network to be independent", func(i event.Independence) bool { return i.Independent })
			source = who.Address + ":6880)"
			continue
		}
		vm.PowerCut()
	}
}

// A stick, to which UEFI takes another way than to a CD. Its image has an iPXE for UEFI
// from its owner, by which other machines boot; the one with the stick starts by shim and
// GRUB as ever.
//
//	[ stick ]──[ first, Secure Boot ]─────────────────────────┤ lan
//	           [ a, Secure Boot with a test key, PXE, iPXE ]──┤
//
// The firmware of a trusts a test key only, which has signed iPXE and, besides Microsoft,
// Debian's shim (signed/build.sh). So the kernel, which Debian signed, starts by that shim
// alone, to which our script leads iPXE. What this does not show is the way from
// Microsoft's key to the shim of iPXE's makers and from that to their iPXE.
func TestSecureBootFromAStickAndByIPXE(t *testing.T) {
	t.Parallel()
	image := filepath.Join(t.TempDir(), "ipxe")
	said := viver(t, "image", "build", out(t, "trees", "tiny"), "-o", image, "--modules", "none", "--level", "1",
		"--lib", out(t, "signed", "lib"), "--ipxe", out(t, "signed", "snponly.efi"))
	if !strings.Contains(said, "snponly.efi, signed by O=SnakeOil") || !strings.Contains(said, "not signed by Microsoft") {
		t.Errorf("the image tool does not say who signed iPXE:\n%s", said)
	}
	root := readManifest(t, filepath.Join(image, manifest.File)).RootFile()
	lab := harness.New(t, harness.Options{})
	lan := segment(t, lab)
	first := start(t, lab, harness.Config{Name: "first", Firmware: harness.SecureUEFI, USBStick: mediumOf(t, image, ""), NICs: []harness.NIC{{LAN: lan}}})
	readyFrom(t, first, "UEFI, Secure Boot, USB", emptyNetwork)
	locked(t, first)
	serving(t, first)
	vm := start(t, lab, harness.Config{Name: "a", Firmware: harness.TestKeyUEFI, NICs: []harness.NIC{{LAN: lan, NoROM: true}}})
	readyFrom(t, vm, "UEFI, Secure Boot, PXE, iPXE", emptyNetwork)
	locked(t, vm)
	if line := run(t, vm, "@read", "/proc/cmdline"); !strings.Contains(line, "initrd=initramfs.img") || strings.Contains(line, "BOOT_IMAGE=") {
		t.Errorf("it was not started by iPXE: %s", line)
	}
	if got := digest(t, vm, "/dev/nbd0", root.Size); got != root.SHA256.String() {
		t.Errorf("it reads its root as %s, the image is %s", got, root.SHA256)
	}
	// Unlike GRUB it can name the machine's card, so it gets the drivers of no other.
	asked := cardsAsked(t, lab)
	if len(asked) == 0 {
		t.Error("iPXE did not ask for the drivers of its card")
	}
	for _, card := range asked {
		if _, ok := nics.FromIPXE(card[0], card[1]); !ok {
			t.Errorf("iPXE says card %s, and PCI %s: that is not one card", card[0], card[1])
		}
	}
}

// cardsAsked finds what iPXE said of cards when it asked for their drivers: its bus ID
// of one, and what PCI has at its place.
func cardsAsked(t *testing.T, lab *harness.Lab) (asked [][2]string) {
	t.Helper()
	path, err := lab.Capture("lan")
	if err != nil {
		t.Fatal(err)
	}
	frames, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`GET [^ ]*nics\.img\?card=([0-9a-f]*)&pci=([0-9a-f]*)&`).FindAllSubmatch(frames, -1) {
		asked = append(asked, [2]string{string(m[1]), string(m[2])})
	}
	return asked
}

// locked asks the kernel whether the firmware checked it, and whether it checks
// its modules in turn: the root hangs on some that it took.
func locked(t *testing.T, vm *harness.VM) {
	t.Helper()
	said := run(t, vm, "/bin/dmesg")
	for _, want := range []string{"secureboot: Secure boot enabled", "Kernel is locked down from EFI Secure Boot"} {
		if !strings.Contains(said, want) {
			t.Errorf("the kernel of %s does not say %q:\n%s", vm.Name(), want, said)
		}
	}
	if modules := run(t, vm, "@read", "/proc/modules"); !strings.Contains(modules, "nbd ") || !strings.Contains(modules, "virtio_net ") {
		t.Errorf("the modules of %s:\n%s", vm.Name(), modules)
	}
}
