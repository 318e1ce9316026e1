package harness_test

import (
	"bytes"
	"net"
	"os/exec"
	"strings"
	"testing"

	"viver.lan/qemu-tests/harness"
)

// A machine without anything but its firmware asks the network for a boot
// program:
//
//	firmware -- virtio-net -- switch -- endpoint
//
// That proves the machine, the switch, the endpoint and the capture together.
func TestFirmwareAsksTheNetwork(t *testing.T) {
	for _, c := range []struct {
		firmware harness.Firmware
		http     bool
		class    string
	}{
		{harness.BIOS, false, "PXEClient:Arch:00000"},
		{harness.UEFI, false, "PXEClient:Arch:00007"},
		{harness.SecureUEFI, true, "HTTPClient:Arch:00016"},
	} {
		t.Run(string(c.firmware), func(t *testing.T) {
			harness.Need(t, "tcpdump")
			lab := harness.New(t, harness.Options{})
			net0, err := lab.LAN("boot")
			if err != nil {
				t.Fatal(err)
			}
			server, err := net0.Attach("server")
			if err != nil {
				t.Fatal(err)
			}
			vm, err := lab.Start(t.Context(), harness.Config{
				Name: "node", Memory: 256, Firmware: c.firmware, HTTPBoot: c.http,
				// With the ROM UEFI would run iPXE, too.
				NICs: []harness.NIC{{LAN: net0, NoROM: c.firmware.IsUEFI()}},
			})
			if err != nil {
				t.Fatal(err)
			}
			mac, err := net.ParseMAC(vm.MAC(0))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := vm.While(t.Context())
			defer cancel()
			for {
				frame, err := server.Receive(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Equal(frame[6:12], mac) && bytes.Contains(frame, []byte(c.class)) {
					break
				}
			}
			path, err := lab.Capture("boot")
			if err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("tcpdump", "-n", "-e", "-r", path, "udp port 67").Output()
			if err != nil {
				t.Fatal(err)
			}
			if want := vm.MAC(0) + " > ff:ff:ff:ff:ff:ff"; !strings.Contains(string(out), want) || !strings.Contains(string(out), "DHCP, Request") {
				t.Errorf("tcpdump does not see the DISCOVER from %s in the capture:\n%s", vm.MAC(0), out)
			}
			vm.PowerCut()
			if _, err := vm.WaitReady(t.Context()); err == nil || !strings.Contains(err.Error(), "the machine is off") {
				t.Errorf("waiting for a machine that is off: error %v", err)
			}
		})
	}
}

func TestWhatTheFirmwarePrintsIsOnTheConsole(t *testing.T) {
	ctx := t.Context()
	lab := harness.New(t, harness.Options{})
	vm, err := lab.Start(ctx, harness.Config{Name: "node", Memory: 64})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vm.WaitConsole(ctx, `No bootable device`); err != nil {
		t.Fatal(err)
	}
	if err := vm.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	if err := vm.WaitReset(ctx, 0); err != nil {
		t.Fatal(err)
	}
	// The firmware reads the keyboard.
	if _, err := vm.WaitConsole(ctx, `(?s)(No bootable device.*){2}`); err != nil {
		t.Fatal(err)
	}
	if err := vm.PressKeys(ctx, "ctrl", "alt", "delete"); err != nil {
		t.Fatal(err)
	}
	if err := vm.WaitReset(ctx, 1); err != nil {
		t.Fatal(err)
	}
}
