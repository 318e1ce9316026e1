package scenarios

import (
	"testing"

	"viver.lan/internal/event"
	"viver.lan/qemu-tests/harness"
)

// How long each kind of client takes to its kernel when it has the machine to
// itself; the rows that other scenarios write come from busier ones.
//
//	[ medium ]──[ first ]──┤ lan
//	       [ one client  ]──┤
func TestFullSecondsToKernel(t *testing.T) {
	iso := medium(t, "tiny", "")
	for _, c := range []struct {
		client string
		harness.Config
	}{
		{"BIOS, CD", harness.Config{CDROM: iso}},
		{"BIOS, USB", harness.Config{USBStick: iso}},
		{"UEFI, CD", harness.Config{Firmware: harness.UEFI, CDROM: iso}},
		{"UEFI, USB", harness.Config{Firmware: harness.UEFI, USBStick: iso}},
	} {
		t.Run(c.client, func(t *testing.T) {
			lab := harness.New(t, harness.Options{})
			c.Name, c.NICs = "first", []harness.NIC{{LAN: segment(t, lab)}}
			seconds(t, lab, c.client, c.Config)
		})
	}
	lab := harness.New(t, harness.Options{VMs: 2})
	lan := segment(t, lab)
	first := start(t, lab, harness.Config{Name: "first", CDROM: iso, NICs: []harness.NIC{{LAN: lan}}})
	ready(t, first)
	serving(t, first)
	for _, c := range []struct {
		client string
		harness.Config
	}{
		{"BIOS, iPXE ROM", harness.Config{Name: "a", NICs: []harness.NIC{{LAN: lan}}}},
		{"BIOS, plain PXE ROM", harness.Config{Name: "b", NICs: []harness.NIC{{LAN: lan, Mangle: plainROM()}}}},
		{"UEFI, PXE", harness.Config{Name: "c", Firmware: harness.UEFI, NICs: []harness.NIC{{LAN: lan, NoROM: true}}}},
		{"UEFI, HTTP Boot", harness.Config{Name: "d", Firmware: harness.UEFI, HTTPBoot: true, NICs: []harness.NIC{{LAN: lan, NoROM: true}}}},
	} {
		seconds(t, lab, c.client, c.Config)
	}
}

// seconds boots a client until our own program has looked at the machine: what
// follows is not the firmware's affair.
func seconds(t *testing.T, lab *harness.Lab, client string, c harness.Config) {
	t.Helper()
	vm := start(t, lab, c)
	defer vm.PowerCut()
	wait(t, vm, "hardware", func(s event.Stage) bool { return s.Name == "hardware" && s.State == event.Done })
	row(t, vm, client, emptyNetwork)
}
