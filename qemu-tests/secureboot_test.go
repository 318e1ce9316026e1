package scenarios

import (
	"strings"
	"testing"

	"viver.lan/internal/event"
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
	image := describe(t, "tiny").RootFile()
	lab := harness.New(t, harness.Options{VMs: 3})
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

// The same medium as a stick; UEFI takes another way to it than on a CD.
func TestSecureBootFromAStick(t *testing.T) {
	lab := harness.New(t, harness.Options{})
	vm := start(t, lab, harness.Config{Name: "first", Firmware: harness.SecureUEFI, USBStick: medium(t, "tiny", ""), NICs: []harness.NIC{{LAN: segment(t, lab)}}})
	readyFrom(t, vm, "UEFI, Secure Boot, USB", emptyNetwork)
	locked(t, vm)
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
