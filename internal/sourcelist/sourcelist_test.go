package sourcelist

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/diskroot"
	"viver.lan/internal/imagetree"
)

// dual is a machine that has its own system beside another on one disk, an idle disk with two, one that is
// mounted, one of LVM in use, one that is encrypted, two sticks, one of which is mounted, two disks that are on USB or hotplug, and a CD.
const dual = `{"blockdevices":[
{"path":"/dev/sda","size":128849018880,"type":"disk","model":"SSD 860","vendor":"Samsung ","rm":false,"ro":false,"tran":"sata","fstype":null,"mountpoints":[null],"children":[
	{"path":"/dev/sda1","size":536870912,"type":"part","model":null,"rm":false,"ro":false,"fstype":"vfat","mountpoints":["/boot/efi"]},
	{"path":"/dev/sda2","size":64424509440,"type":"part","fstype":"ext4","mountpoints":["/"]},
	{"path":"/dev/sda3","size":62277025792,"type":"part","fstype":"ext4","mountpoints":[null]},
	{"path":"/dev/sda4","size":1073741824,"type":"part","fstype":"swap","mountpoints":["[SWAP]"]}]},
{"path":"/dev/sdb","size":1099511627776,"type":"disk","model":"Idle","fstype":null,"mountpoints":[null],"children":[{"path":"/dev/sdb1","size":1,"type":"part","fstype":"btrfs","mountpoints":[null]}]},
{"path":"/dev/sdc","size":1099511627776,"type":"disk","model":"Mounted","fstype":"ext4","mountpoints":["MOUNTED"]},
{"path":"/dev/sdd","size":1099511627776,"type":"disk","model":null,"fstype":"LVM2_member","mountpoints":[null],"children":[{"path":"/dev/mapper/lab-root","size":5368709120,"type":"lvm","fstype":"xfs","mountpoints":[null]}]},
{"path":"/dev/sde","size":1099511627776,"type":"disk","model":"Secret","fstype":"crypto_LUKS","mountpoints":[null]},
{"path":"/dev/sdf","size":16106127360,"type":"disk","model":"Ultra","vendor":"SanDisk","rm":true,"ro":false,"tran":"usb","fstype":null,"mountpoints":[null],"children":[{"path":"/dev/sdf1","size":16105078784,"type":"part","fstype":"vfat","mountpoints":[null]}]},
{"path":"/dev/sdg","size":16106127360,"type":"disk","model":"Ultra","rm":true,"ro":false,"fstype":"vfat","mountpoints":["/media/x"]},
{"path":"/dev/sdh","size":1099511627776,"type":"disk","model":"Outside","rm":false,"hotplug":false,"tran":"usb","mountpoints":[null],"children":[
	{"path":"/dev/sdh1","size":536870912,"type":"part","rm":false,"hotplug":false,"tran":null,"fstype":"ext4","mountpoints":["/media/y"]},
	{"path":"/dev/sdh2","size":536870912,"type":"part","rm":false,"hotplug":false,"tran":null,"fstype":"ext4","mountpoints":[null]},
	{"path":"/dev/sdh3","size":536870912,"type":"part","fstype":"swap","mountpoints":[null]}]},
{"path":"/dev/mmcblk0","size":1099511627776,"type":"disk","rm":false,"hotplug":true,"tran":null,"fstype":"ext4","mountpoints":[null]},
{"path":"/dev/sdi","size":1099511627776,"type":"disk","model":"Broken","rm":false,"hotplug":false,"mountpoints":[null]},
{"path":"/dev/zram0","size":0,"type":"disk","mountpoints":[null]},
{"path":"/dev/sr0","size":1073741312,"type":"rom","rm":true,"mountpoints":[null]},
{"path":"/dev/loop0","size":1073741312,"type":"loop","mountpoints":[null]}]}`

func TestListing(t *testing.T) {
	mounted := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(mounted, "etc"), 0o755), os.WriteFile(filepath.Join(mounted, "etc/os-release"), []byte("PRETTY_NAME=Old\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	disks, err := parseDevices([]byte(strings.Replace(dual, "MOUNTED", mounted, 1)))
	if err != nil {
		t.Fatal(err)
	}
	var opened []string
	l := &listing{ctx: context.Background(), probe: func(path string) ([]diskroot.Found, bool, error) {
		opened = append(opened, path)
		switch path {
		case "/dev/sda3", "/dev/mapper/lab-root":
			return []diskroot.Found{{Ref: "0", Name: "Fedora", FSType: "ext4", Size: 58 << 30}}, false, nil
		case "/dev/sdb":
			return []diskroot.Found{{Ref: "1:@", Name: "A", FSType: "btrfs", Size: 1 << 30}, {Ref: "1:@b", Name: "B", FSType: "btrfs", Size: 1 << 20}}, true, nil
		case "/dev/sde":
			return nil, true, nil
		}
		return nil, false, errors.New("out of order")
	}}
	for _, d := range disks {
		if d.Type == "disk" && d.Size > 0 {
			l.disk(d)
		}
	}
	var got []string
	for _, p := range l.places {
		got = append(got, p.String())
	}
	want := []string{
		"/dev/sda3: Fedora, on ext4 of 58 GiB, Samsung SSD 860, a disk of 120 GiB",
		"/dev/sdb --root 1:@: A, on btrfs of 1.0 GiB, Idle, a disk of 1024 GiB",
		"/dev/sdb --root 1:@b: B, on btrfs of 1.0 MiB, Idle, a disk of 1024 GiB",
		mounted + ": Old, on /dev/sdc of Mounted, a disk of 1024 GiB",
		"/dev/mapper/lab-root: Fedora, on ext4 of 58 GiB, a disk of 1024 GiB",
		"/dev/sde, Secret, a disk of 1024 GiB: encrypted, its passphrase is needed",
		"/dev/sdf, SanDisk Ultra, a disk of 15 GiB: can be plugged in, so it was not looked at; choose it to look",
		"/dev/sdh2, Outside, a disk of 1024 GiB: can be plugged in, so it was not looked at; choose it to look",
		"/dev/mmcblk0, a disk of 1024 GiB: can be plugged in, so it was not looked at; choose it to look",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if want := []string{"/dev/sda3", "/dev/sdb", "/dev/mapper/lab-root", "/dev/sde", "/dev/sdi"}; !slices.Equal(opened, want) {
		t.Errorf("opened %v: what is in use or can be plugged in is not to be, and the rest is; want %v", opened, want)
	}
	if want := []string{"/dev/sdi was not looked at: out of order"}; !slices.Equal(l.notes, want) {
		t.Errorf("notes %q", l.notes)
	}
	if got, want := sticks(disks), []Stick{{"/dev/sdf", "SanDisk Ultra, 15 GiB, with vfat of 14 GiB"}}; !slices.Equal(got, want) {
		t.Errorf("sticks %v", got)
	}
}

// This machine's own lsblk is understood.
func TestDevicesOfThisMachine(t *testing.T) {
	disks, err := devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range disks {
		if d.Path == "" || d.Type == "" {
			t.Errorf("a device without a name: %+v", d)
		}
	}
}

func TestUnitOf(t *testing.T) {
	for name, want := range map[string]string{
		"home/anna/x/y": "home/anna", "home/anna": "", "srv/www/x": "srv/www", "opt/app/bin/x": "opt/app", "var/lib/libvirt/images/x": "var/lib/libvirt", "var/lib/dpkg/info/x": "",
		"var/log/syslog": "var/log", "usr/bin/x": "", "usr/local/x/y": "usr/local", "usr/src/linux/x": "usr/src", "data/x": "data", "etc/x": "", "root/x": "root", "vmlinuz": "", ".": "", "var/lib/x": "",
	} {
		if got := unitOf(name); got != want {
			t.Errorf("%s is a part of %q, want %q", name, got, want)
		}
	}
}

func TestLargeIn(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{"home/anna/x": 2 << 20, "home/ben/x": 1 << 10, "srv/data/a": 40 << 20, "srv/data/b/c": 30 << 20, "usr/bin/x": 80 << 20, "opt/small/x": 1 << 20} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, make([]byte, size), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := imagetree.Scan(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	list, total := LargeIn(tree)
	if want := []Large{{"/srv/data", 70 << 20, false}, {"/home/anna", 2 << 20, true}}; !slices.Equal(list, want) || total != 153<<20+1<<10 {
		t.Errorf("got %v of %d bytes", list, total)
	}
	if got := list[1].String(); got != "/home/anna, 2.0 MiB, a person's files" {
		t.Error(got)
	}
}

func FuzzParseDevices(f *testing.F) {
	f.Add([]byte(dual))
	f.Fuzz(func(_ *testing.T, out []byte) {
		disks, _ := parseDevices(out)
		sticks(disks)
	})
}
