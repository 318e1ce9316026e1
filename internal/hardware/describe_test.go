package hardware

import (
	"strings"
	"testing"

	"viver.lan/internal/machine/machinetest"
)

const (
	pci0 = "/sys/devices/pci0000:00/"
	vga  = "pci:v00001234d00001111sv00001AF4sd00001100bc03sc00i00\n"
	i915 = "pci:v00008086d00000412sv00001028sd000005A4bc03sc00i00\n"
	nic  = "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00\n"
)

// office is a machine as sysfs shows it: one card with a driver, one without,
// a virtio network card, and no pci.ids file anywhere.
func office(t *testing.T) *machinetest.Host {
	return machinetest.New(t, map[string]string{
		"/sys/firmware/efi/systab":       "",
		"/sys/class/dmi/id/sys_vendor":   "ACME\n",
		"/sys/class/dmi/id/product_name": "Desk 3000\n",
		"/sys/class/dmi/id/product_uuid": "4C4C4544-0042-3510-8056-B4C04F4A3232\n",
		"/proc/meminfo":                  "MemTotal:        1014000 kB\nMemFree: 1 kB\n",
		pci0 + "0000:00:01.0/modalias":   vga,
		pci0 + "0000:00:02.0/modalias":   i915,
		pci0 + "0000:00:03.0/modalias":   nic,
		pci0 + "0000:00:01.0/class":      "0x030000\n", pci0 + "0000:00:01.0/vendor": "0x1234\n", pci0 + "0000:00:01.0/device": "0x1111\n",
		pci0 + "0000:00:02.0/class": "0x030000\n", pci0 + "0000:00:02.0/vendor": "0x8086\n", pci0 + "0000:00:02.0/device": "0x0412\n",
		pci0 + "0000:00:03.0/class": "0x020000\n", pci0 + "0000:00:03.0/subsystem": "-> ../../../bus/pci",
		pci0 + "0000:00:01.0/subsystem":                         "-> ../../../bus/pci",
		pci0 + "0000:00:02.0/subsystem":                         "-> ../../../bus/pci",
		pci0 + "0000:00:02.0/driver":                            "-> ../../../bus/pci/drivers/i915",
		"/sys/bus/pci/drivers/i915/":                            "",
		"/sys/bus/pci/drivers/virtio-pci/":                      "",
		"/sys/bus/pci/devices/0000:00:01.0":                     "-> ../../../devices/pci0000:00/0000:00:01.0",
		"/sys/bus/pci/devices/0000:00:02.0":                     "-> ../../../devices/pci0000:00/0000:00:02.0",
		"/sys/bus/pci/devices/0000:00:03.0":                     "-> ../../../devices/pci0000:00/0000:00:03.0",
		pci0 + "0000:00:02.0/drm/card0/device":                  "-> ../../../0000:00:02.0",
		"/sys/class/drm/card0":                                  "-> ../../devices/pci0000:00/0000:00:02.0/drm/card0",
		"/sys/class/drm/card0-HDMI-A-1/":                        "",
		pci0 + "0000:00:03.0/virtio0/net/eth0/address":          "52:54:00:12:34:56\n",
		pci0 + "0000:00:03.0/virtio0/net/eth0/addr_assign_type": "0\n",
		pci0 + "0000:00:03.0/virtio0/net/eth0/device":           "-> ../../../virtio0",
		pci0 + "0000:00:03.0/virtio0/driver":                    "-> ../../../../bus/virtio/drivers/virtio_net",
		"/sys/bus/virtio/drivers/virtio_net/":                   "",
		"/sys/class/net/eth0":                                   "-> ../../devices/pci0000:00/0000:00:03.0/virtio0/net/eth0",
		"/sys/devices/virtual/net/lo/address":                   "00:00:00:00:00:00\n",
		"/sys/class/net/lo":                                     "-> ../../devices/virtual/net/lo",
	})
}

func TestDescribe(t *testing.T) {
	m := Describe(office(t).Root)
	if m.Firmware != "uefi" || m.Vendor != "ACME" || m.Product != "Desk 3000" || m.UUID != "4c4c4544-0042-3510-8056-b4c04f4a3232" {
		t.Errorf("identity: %+v", m)
	}
	if m.Memory != 1014000<<10 {
		t.Errorf("memory %d", m.Memory)
	}
	if len(m.NICs) != 1 || m.NICs[0] != (NIC{Name: "eth0", MAC: "52:54:00:12:34:56", Driver: "virtio_net", PCI: "0000:00:03.0"}) {
		t.Errorf("network cards: %+v", m.NICs)
	}
	want := []Graphics{
		{PCI: "0000:00:01.0", Vendor: "1234", Device: "1111", Modalias: strings.TrimSpace(vga)},
		{PCI: "0000:00:02.0", Vendor: "8086", Device: "0412", Modalias: strings.TrimSpace(i915), Card: "card0", Driver: "i915"},
	}
	if len(m.Graphics) != 2 || m.Graphics[0] != want[0] || m.Graphics[1] != want[1] {
		t.Errorf("graphics: %+v\nwant %+v", m.Graphics, want)
	}
	if s := m.String(); !strings.Contains(s, "graphics i915") || !strings.Contains(s, "graphics 1234:1111") {
		t.Errorf("String() = %s", s)
	}
}

func TestDescribeNothing(t *testing.T) {
	if m := Describe(t.TempDir()); m.Firmware != "bios" || m.Product != "" || len(m.Graphics) != 0 {
		t.Errorf("an empty machine: %+v", m)
	}
}
