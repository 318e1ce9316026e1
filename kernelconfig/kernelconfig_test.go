package kernelconfig

import (
	"slices"
	"strings"
	"testing"
)

func TestEveryOptionHasAReason(t *testing.T) {
	options, err := Options()
	if err != nil {
		t.Fatal(err)
	}
	if len(options) < 15 {
		t.Errorf("only %d options", len(options))
	}
	seen := make(map[string]bool)
	for _, o := range options {
		for _, name := range o.Names() {
			if seen[name] {
				t.Errorf("%s is listed twice", name)
			}
			seen[name] = true
			if name != strings.ToUpper(name) || strings.HasPrefix(name, "CONFIG_") {
				t.Errorf("%s: write the name in capitals, without CONFIG_", name)
			}
		}
		if len(o.Names()) == 0 || (o.Name != "") == (len(o.Any) > 0) {
			t.Errorf("%+v: want either name or any", o)
		}
		if len(o.Reason) < 20 || strings.HasSuffix(o.Reason, ".") {
			t.Errorf("%s: the reason %q is no clause that says why", o, o.Reason)
		}
		switch {
		case o.Need == Builtin && o.Module != "":
			t.Errorf("%s must be built in, a module is of no use", o)
		case o.Need == Module && o.Module == "":
			t.Errorf("%s may be a module, which one?", o)
		case o.Need != Builtin && o.Need != Module:
			t.Errorf("%s: need = %q", o, o.Need)
		}
	}
	for _, name := range []string{"BLK_DEV_NBD", "SQUASHFS", "SQUASHFS_ZSTD", "OVERLAY_FS", "BLK_DEV_INITRD", "DEVTMPFS", "TMPFS"} {
		if !seen[name] {
			t.Errorf("%s is not asked for", name)
		}
	}
}

func TestEveryGroupHasAReason(t *testing.T) {
	groups, err := Groups()
	if err != nil {
		t.Fatal(err)
	}
	in := make(map[string]string)
	for _, g := range groups {
		if g.Name == "" || len(g.Reason) < 10 {
			t.Errorf("group %q has the reason %q", g.Name, g.Reason)
		}
		for _, m := range g.Modules {
			if strings.Contains(m, "-") {
				t.Errorf("%s: module names have underscores", m)
			}
			if other, ok := in[m]; ok {
				t.Errorf("%s is in the groups %s and %s", m, other, g.Name)
			}
			in[m] = g.Name
		}
		for _, d := range g.Dirs {
			if strings.HasPrefix(d, "kernel/") || strings.HasSuffix(d, "/") {
				t.Errorf("%s: directories are below kernel/ and end without a slash", d)
			}
		}
	}
	// What an option lets the initramfs load must be in the initramfs.
	options, err := Options()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range options {
		if _, ok := in[o.Module]; o.Module != "" && !ok {
			t.Errorf("%s may be the module %s, which is in no group", o, o.Module)
		}
	}
}

// What a machine needs to reach its network and its root disk is never late, nor is
// what most machines have for disks; what rare disks and file systems need always is.
func TestWhatIsLate(t *testing.T) {
	groups, err := Groups()
	if err != nil {
		t.Fatal(err)
	}
	late := make(map[string]bool)
	for _, g := range groups {
		for _, m := range append(g.Modules, g.Dirs...) {
			late[m] = g.Late
		}
	}
	for _, m := range []string{
		"nbd", "squashfs", "overlay", "loop", "af_packet", "virtio_net", "virtio_console", "hv_netvsc", "xen_netfront", "vmxnet3", "tg3",
		"drivers/net/ethernet/intel", "drivers/net/phy", "drivers/usb/host", "r8152", "usbhid", "atkbd", "drivers/virtio",
		"ahci", "nvme", "sd_mod", "virtio_blk", "crc32c_intel",
	} {
		if is, ok := late[m]; !ok || is {
			t.Errorf("%s: listed %v, late %v; it is needed before there is a network", m, ok, is)
		}
	}
	for _, m := range []string{"ext4", "vfat", "megaraid_sas", "drivers/ata", "drivers/usb/storage", "mmc_block", "hv_storvsc"} {
		if is, ok := late[m]; !ok || !is {
			t.Errorf("%s: listed %v, late %v; firmware need not load it from a network", m, ok, is)
		}
	}
}

// What is for a machine's own wired card only may be left out for others. Cards of
// virtual machines are never left out: some are another one for firmware than for Linux.
func TestWhatIsForSomeCards(t *testing.T) {
	groups, err := Groups()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"ethernet": true, "ethernet-of-servers": true, "ethernet-without-uefi": true, "phy": true, "usb-ethernet": true}
	for _, g := range groups {
		if g.NIC != want[g.Name] {
			t.Errorf("%s: for some cards only %v, want %v", g.Name, g.NIC, want[g.Name])
		}
		if g.NIC && g.Late {
			t.Errorf("%s: in which of two files?", g.Name)
		}
		if g.NoUEFI && (!g.NIC || len(g.Dirs) > 0) {
			t.Errorf("%s: what is for cards without UEFI is for cards, and named", g.Name)
		}
		if g.Name == "phy" && g.With == "" {
			t.Error("no card gets the transceivers' drivers")
		}
	}
}

// Every machine fetches the initramfs with what its firmware has for a network,
// so a directory is taken whole only where most of it is for a PC's own disks,
// wired network or keyboard. Anything else must be named, module by module.
func TestWholeDirectoriesAreFew(t *testing.T) {
	groups, err := Groups()
	if err != nil {
		t.Fatal(err)
	}
	may := []string{
		"drivers/ata", "drivers/block/mtip32xx", "drivers/usb/host", "drivers/usb/storage", "drivers/virtio",
		"drivers/net/ethernet/", "drivers/net/phy", "drivers/net/pcs", "drivers/net/mdio",
	}
	for _, g := range groups {
		for _, dir := range g.Dirs {
			if !slices.ContainsFunc(may, func(m string) bool {
				return dir == m || strings.HasSuffix(m, "/") && strings.HasPrefix(dir, m)
			}) {
				t.Errorf("%s: %s is taken whole: name the modules, or say here why", g.Name, dir)
			}
		}
	}
}

func TestHas(t *testing.T) {
	config, err := ParseConfig(strings.NewReader(`
# CONFIG_UNSET is not set
CONFIG_YES=y
CONFIG_MODULAR=m
CONFIG_TEXT="y"
CONFIG_NUMBER=8
garbage
=
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		option       Option
		ok, asModule bool
	}{
		{Option{Name: "YES", Need: Builtin}, true, false},
		{Option{Name: "YES", Need: Module}, true, false},
		{Option{Name: "MODULAR", Need: Module}, true, true},
		{Option{Name: "MODULAR", Need: Builtin}, false, false},
		{Option{Name: "UNSET", Need: Module}, false, false},
		{Option{Name: "NUMBER", Need: Module}, false, false},
		{Option{Name: "ABSENT", Need: Builtin}, false, false},
		{Option{Any: []string{"ABSENT", "YES"}, Need: Builtin}, true, false},
		{Option{Any: []string{"ABSENT", "MODULAR"}, Need: Builtin}, false, false},
	} {
		if ok, asModule := config.Has(c.option); ok != c.ok || asModule != c.asModule {
			t.Errorf("Has(%s, %s) = %v, %v, want %v, %v", c.option, c.option.Need, ok, asModule, c.ok, c.asModule)
		}
	}
}
