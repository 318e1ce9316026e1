package scenarios

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/event"
	"viver.lan/internal/manifest"
	"viver.lan/internal/testtable"
	"viver.lan/qemu-tests/harness"
)

// hardwareRow is the table of what a machine can be made of.
func hardwareRow(t *testing.T, board, device, module, found string, took time.Duration) {
	t.Helper()
	testtable.Table{Name: "hardware", Columns: []string{"board", "device", "module", "found", "seconds from power-on to services"}}.
		Add(t, board, device, module, found, fmt.Sprintf("%.0f", took.Seconds()))
}

// diskKind is a way to attach a disk.
type diskKind struct {
	device string // QEMU's options, in which DRIVE is the disk's
	module string
	mib    int64 // the disk's size, by which it is recognised
}

// What a machine boots from and keeps its files on, as QEMU has it: a boot for each kind of
// network card, all kinds of disks in one machine for each board. A disk must be there with
// its size, so its driver works; the drivers for disks come over the network, after the
// machine has found that it needs them. No disk is written.
//
//	[ CD ]──[ first ]──┤ lan ├──[ one machine after the other ]
func TestFullHardware(t *testing.T) {
	lab := harness.New(t, harness.Options{VMs: 2})
	lan := segment(t, lab)
	empty, err := lab.LAN("empty")
	if err != nil {
		t.Fatal(err)
	}
	first := start(t, lab, harness.Config{Name: "first", CDROM: medium(t, "tiny", ""), NICs: []harness.NIC{{LAN: lan}}})
	ready(t, first)
	serving(t, first)

	for _, card := range []struct{ board, model, module string }{
		{"q35", "virtio-net-pci", "virtio_net"}, {"q35", "e1000", "e1000"}, {"q35", "e1000e", "e1000e"}, {"q35", "vmxnet3", "vmxnet3"},
		{"pc", "rtl8139", "8139cp"}, {"pc", "ne2k_pci", "ne2k_pci"},
	} {
		t.Run(card.model, func(t *testing.T) {
			c := harness.Config{Name: card.model, Machine: card.board, NICs: []harness.NIC{{LAN: lan, Model: card.model}}}
			bootsWith(t, lab, c, card.model, card.module)
		})
	}
	// No firmware boots from it, so kernel and drivers come from elsewhere, such as a stick's
	// boot loader; the image comes over the adapter.
	t.Run("usb-net", func(t *testing.T) {
		c := harness.Config{Name: "usb-net", Machine: "q35,usb=on", NICs: []harness.NIC{{LAN: lan, Model: "usb-net"}},
			Kernel: out(t, "tiny", manifest.Kernel), Initrd: withDrivers(t, "tiny"),
			Append: "console=ttyS0 viver.image=" + describe(t, "tiny").Infohash.String()}
		bootsWith(t, lab, c, "usb-net", "cdc_ether")
	})
	// The first card on the bus has a cable and nobody at its end; both drivers are in the
	// initramfs.
	t.Run("wrong card first", func(t *testing.T) {
		c := harness.Config{Name: "two", NICs: []harness.NIC{{LAN: empty, Model: "vmxnet3", NoROM: true}, {LAN: lan}},
			Args: []string{"-set", "device.nic1.bootindex=1"}}
		bootsWith(t, lab, c, "vmxnet3 with nobody at its end, then virtio-net-pci", "virtio_net")
	})

	t.Run("disks on q35", func(t *testing.T) {
		findsDisks(t, lab, harness.Config{Name: "q35-disks", NICs: []harness.NIC{{LAN: lan}}}, []diskKind{
			{"ide-hd,bus=ide.1,DRIVE", "ahci", 17},
			{"nvme,serial=nvme,DRIVE", "nvme", 18},
			{"virtio-blk-pci,DRIVE", "virtio_blk", 19},
			{"virtio-scsi-pci,id=vscsi scsi-hd,bus=vscsi.0,DRIVE", "virtio_scsi", 20},
			{"lsi53c895a,id=lsi scsi-hd,bus=lsi.0,DRIVE", "sym53c8xx", 21},
			{"megasas,id=mega scsi-hd,bus=mega.0,DRIVE", "megaraid_sas", 23},
			{"pvscsi,id=pvscsi scsi-hd,bus=pvscsi.0,DRIVE", "vmw_pvscsi", 24},
			{"qemu-xhci,id=xhci usb-storage,bus=xhci.0,DRIVE", "usb_storage", 25},
			{"usb-uas,id=uas,bus=xhci.0 scsi-hd,bus=uas.0,DRIVE", "uas", 26},
			{"sdhci-pci,id=sd sd-card,DRIVE", "sdhci_pci", 32},
		})
	})
	t.Run("disks on i440fx", func(t *testing.T) {
		findsDisks(t, lab, harness.Config{Name: "pc-disks", Machine: "pc,usb=on", NICs: []harness.NIC{{LAN: lan, Model: "e1000"}}}, []diskKind{
			{"ide-hd,bus=ide.0,DRIVE", "ata_piix", 17},
			{"virtio-blk-pci,DRIVE", "virtio_blk", 18},
			{"usb-storage,bus=usb-bus.0,DRIVE", "usb_storage", 19},
			{"ich9-ahci,id=sata ide-hd,bus=sata.0,DRIVE", "ahci", 20},
		})
	})
}

// bootsWith boots a machine, whose network is run by module then.
func bootsWith(t *testing.T, lab *harness.Lab, c harness.Config, device, module string) {
	t.Helper()
	found := "no"
	vm := start(t, lab, c)
	defer vm.PowerCut()
	defer func() { hardwareRow(t, board(c), device, module, found, time.Since(vm.Started())) }()
	ready(t, vm)
	run(t, vm, "ls", "/sys/module/"+module)
	found = "yes"
}

// board is a machine's, without options.
func board(c harness.Config) string {
	name, _, _ := strings.Cut(c.Machine, ",")
	if name == "pc" {
		return "i440fx"
	}
	return "q35"
}

// findsDisks boots a machine with all these disks, and finds each in it.
func findsDisks(t *testing.T, lab *harness.Lab, c harness.Config, kinds []diskKind) {
	t.Helper()
	dir := t.TempDir()
	before := map[string]string{}
	for i, k := range kinds {
		path := filepath.Join(dir, fmt.Sprintf("%d.img", i))
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, k.mib<<20); err != nil {
			t.Fatal(err)
		}
		before[path] = sum(t, path)
		c.Args = append(c.Args, "-drive", fmt.Sprintf("if=none,id=kind%d,format=raw,file=%s", i, path))
		for _, device := range strings.Fields(strings.ReplaceAll(k.device, "DRIVE", fmt.Sprintf("drive=kind%d", i))) {
			c.Args = append(c.Args, "-device", device)
		}
	}
	vm := start(t, lab, c)
	defer vm.PowerCut()
	ready(t, vm)
	took := time.Since(vm.Started())
	// The machine is up before its disks have answered: the stage says when that is over.
	wait(t, vm, "the disks stage", func(s event.Stage) bool { return s.Name == "disks" && s.State == event.Done })
	cat := []string{"cat"}
	for _, name := range strings.Fields(run(t, vm, "ls", "/sys/block")) {
		cat = append(cat, "/sys/block/"+name+"/size")
	}
	sizes := run(t, vm, cat...)
	modules := run(t, vm, "ls", "/sys/module")
	for _, k := range kinds {
		found := "yes"
		if !strings.Contains("\n"+sizes+"\n", fmt.Sprintf("\n%d\n", k.mib<<11)) || !strings.Contains("\n"+modules+"\n", "\n"+k.module+"\n") {
			found = "no"
			t.Errorf("%s: no disk of %d MiB by %s; found (sectors): %s", k.device, k.mib, k.module, strings.Join(strings.Fields(sizes), " "))
		}
		hardwareRow(t, board(c), strings.ReplaceAll(k.device, ",DRIVE", ""), k.module, found, took)
	}
	vm.PowerCut()
	for path, was := range before {
		if sum(t, path) != was {
			t.Errorf("the disk %s was written to", path)
		}
	}
}
