package scenarios

import (
	"strings"
	"testing"

	"viver.lan/qemu-tests/harness"
)

// One machine, one medium, nobody else on the network:
//
//	[ CD or USB stick ]──[ first node ]──┤ lan
func TestMediumBoots(t *testing.T) {
	iso := medium(t, "tiny", "")
	size := describe(t, "tiny").RootFile()
	for _, firmware := range []harness.Firmware{harness.BIOS, harness.UEFI} {
		for _, device := range []harness.Device{harness.CD, harness.USB} {
			t.Run(string(firmware)+"/"+string(device), func(t *testing.T) {
				lab := harness.New(t, harness.Options{})
				c := harness.Config{Name: "first", Firmware: firmware, NICs: []harness.NIC{{LAN: segment(t, lab)}}}
				if device == harness.CD {
					c.CDROM = iso
				} else {
					c.USBStick = iso
				}
				vm := start(t, lab, c)
				name := readyFrom(t, vm, strings.ToUpper(string(firmware)+", "+string(device)), emptyNetwork)
				if mac := strings.ReplaceAll(vm.MAC(0), ":", ""); name != "node-"+mac {
					t.Errorf("hostname %q does not come from MAC %s", name, vm.MAC(0))
				}
				if got := digest(t, vm, "/dev/nbd0", size.Size); got != size.SHA256.String() {
					t.Errorf("root disk reads as %s, the image is %s", got, size.SHA256)
				}
				if mounts := run(t, vm, "@read", "/proc/mounts"); !strings.Contains(mounts, "overlay / overlay") && !strings.Contains(mounts, " / overlay") {
					t.Errorf("the root is no overlay:\n%s", mounts)
				}
			})
		}
	}
}
