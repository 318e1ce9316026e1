package hardware

import (
	"reflect"
	"strings"
	"testing"
)

// card is a PCI device's files below /sys.
func card(address, class, id string, more map[string]string) map[string]string {
	vendor, device, _ := strings.Cut(id, ":")
	files := map[string]string{
		"class": class, "vendor": "0x" + vendor, "device": "0x" + device,
		"modalias": "pci:v0000" + strings.ToUpper(vendor) + "d0000" + strings.ToUpper(device) + "sv00000000sd00000000bc02sc00i00",
	}
	for name, text := range more {
		files[name] = text
	}
	all := map[string]string{}
	for name, text := range files {
		all["sys/bus/pci/devices/"+address+"/"+name] = text
	}
	return all
}

func TestSurvey(t *testing.T) {
	tables := &Tree{aliases: ParseAliases("alias pci:v00008086d00001533sv*sd*bc*sc*i* igb\nalias usb:v0B95p1790d*dc*dsc*dp*ic*isc*ip*in* ax88179_178a\n")}
	const log = `[    3.1] r8169 0000:02:00.0: firmware: failed to load rtl_nic/rtl8168g-2.fw (-2)
[    3.1] r8169 0000:02:00.0: firmware: failed to load rtl_nic/rtl8168g-2.fw (-2)
[    3.2]r8169 0000:02:00.0: Direct firmware load for rtl_nic/there.fw failed with error -2
[    3.3] something 0000:02:00.0: failed with error -2
`
	for _, tt := range []struct {
		name  string
		files []map[string]string
		want  Device   // but for the sentences
		says  []string // a part of each of these, in order
	}{
		{"runs", []map[string]string{card("0000:00:1f.6", "0x020000", "8086:15d8", map[string]string{
			"driver": "-> ../../../bus/pci/drivers/e1000e", "net/eth0/speed": "1000", "net/eth0/duplex": "full"})},
			Device{Kind: KindNetwork, Bus: "pci", Address: "0000:00:1f.6", ID: "8086:15d8", Name: "Intel", Link: "eth0", Driver: "e1000e"}, nil},
		{"virtio", []map[string]string{card("0000:00:03.0", "0x020000", "1af4:1000", map[string]string{
			"driver": "-> ../../../bus/pci/drivers/virtio-pci", "virtio0/net/eth0/speed": "-1"})},
			Device{Kind: KindNetwork, Bus: "pci", Address: "0000:00:03.0", ID: "1af4:1000", Name: "Red Hat (virtio)", Link: "eth0", Driver: "virtio-pci"}, nil},
		{"module not loaded", []map[string]string{card("0000:03:00.0", "0x020000", "8086:1533", nil)},
			Device{Kind: KindNetwork, Bus: "pci", Address: "0000:03:00.0", ID: "8086:1533", Name: "Intel", Modules: []string{"igb"}}, []string{"modprobe igb"}},
		{"module did not take it", []map[string]string{card("0000:03:00.0", "0x020000", "8086:1533", nil), {"sys/module/igb/initstate": "live"}},
			Device{Kind: KindNetwork, Bus: "pci", Address: "0000:03:00.0", ID: "8086:1533", Name: "Intel", Modules: []string{"igb"}}, []string{"did not take it"}},
		{"no module", []map[string]string{card("0000:03:00.0", "0x010700", "1234:5678", nil)},
			Device{Kind: KindStorage, Bus: "pci", Address: "0000:03:00.0", ID: "1234:5678"}, []string{"no module of this kernel claims it"}},
		{"no firmware", []map[string]string{card("0000:02:00.0", "0x020000", "10ec:8168", map[string]string{"driver": "-> x/r8169"}), {"lib/firmware/rtl_nic/there.fw.xz": "x"}},
			Device{Kind: KindNetwork, Bus: "pci", Address: "0000:02:00.0", ID: "10ec:8168", Name: "Realtek", Driver: "r8169"},
			[]string{"r8169 asked for the firmware rtl_nic/rtl8168g-2.fw, which is not there: install firmware-realtek"}},
		{"half duplex", []map[string]string{card("0000:04:00.0", "0x020000", "10ec:8168", map[string]string{
			"driver": "-> x/r8169", "net/no-such-link/speed": "100", "net/no-such-link/duplex": "half"})},
			Device{Kind: KindNetwork, Bus: "pci", Address: "0000:04:00.0", ID: "10ec:8168", Name: "Realtek", Driver: "r8169", Link: "no-such-link"},
			[]string{"half duplex"}},
		{"narrow", []map[string]string{card("0000:01:00.0", "0x010802", "144d:a808", map[string]string{"driver": "-> x/nvme", "current_link_width": "1", "max_link_width": "4"})},
			Device{Kind: KindStorage, Bus: "pci", Address: "0000:01:00.0", ID: "144d:a808", Name: "Samsung", Driver: "nvme"}, []string{"on 1 of the 4 lanes"}},
		{"not linked", []map[string]string{card("0000:01:00.0", "0x030000", "10de:1c82", map[string]string{"driver": "-> x/nouveau", "current_link_width": "0", "max_link_width": "255"})},
			Device{Kind: KindGraphics, Bus: "pci", Address: "0000:01:00.0", ID: "10de:1c82", Name: "NVIDIA", Driver: "nouveau"}, nil},
		{"adapter without driver", []map[string]string{{
			"sys/bus/usb/devices/1-2:1.0/modalias": "usb:v0B95p1790d0100dcFFdscFFdp00icFFiscFFip00in00",
			"sys/bus/usb/devices/1-2/idVendor":     "0b95", "sys/bus/usb/devices/1-2/idProduct": "1790", "sys/bus/usb/devices/1-2/product": "AX88179"}},
			Device{Kind: KindUSB, Bus: "usb", Address: "1-2:1.0", ID: "0b95:1790", Name: "AX88179", Modules: []string{"ax88179_178a"}}, []string{"modprobe ax88179_178a"}},
		{"slow stick", []map[string]string{{
			"sys/bus/usb/devices/1-1:1.0/modalias": "usb:v0781p5567d0100dc00dsc00dp00ic08isc06ip50in00", "sys/bus/usb/devices/1-1:1.0/driver": "-> x/usb-storage",
			"sys/bus/usb/devices/1-1/idVendor": "0781", "sys/bus/usb/devices/1-1/idProduct": "5567", "sys/bus/usb/devices/1-1/speed": "12"}},
			Device{Kind: KindStorage, Bus: "usb", Address: "1-1:1.0", ID: "0781:5567", Driver: "usb-storage"}, []string{"12 Mbit/s"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for _, files := range tt.files {
				write(t, root, files)
			}
			got := Survey(root, tables, log)
			if len(got) != 1 {
				t.Fatalf("found %+v, want one device", got)
			}
			says := append(got[0].Missing, got[0].Slow...)
			got[0].Missing, got[0].Slow = nil, nil
			if !reflect.DeepEqual(got[0], tt.want) {
				t.Errorf("found %+v, want %+v", got[0], tt.want)
			}
			if len(says) != len(tt.says) {
				t.Fatalf("says %q, want %q", says, tt.says)
			}
			for i, part := range tt.says {
				if !strings.Contains(says[i], part) {
					t.Errorf("says %q, want %q in it", says[i], part)
				}
			}
		})
	}
}

func TestFastestOf(t *testing.T) {
	for _, tt := range []struct {
		modes []uint32
		want  int
	}{
		{nil, 0}, {[]uint32{0}, 0}, {[]uint32{0x2f}, 1000}, {[]uint32{0xf}, 100}, {[]uint32{0x2f, 1 << 15}, 2500}, {[]uint32{0x2f | 1<<12}, 10000},
	} {
		if got := fastestOf(tt.modes); got != tt.want {
			t.Errorf("fastestOf(%#x) = %d, want %d", tt.modes, got, tt.want)
		}
	}
	if got := fastest("no-such-link"); got != 0 {
		t.Errorf("a link that is not there can have %d Mbit/s", got)
	}
}
