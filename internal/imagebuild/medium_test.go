package imagebuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/config"
	"viver.lan/internal/media"
)

// TestMedium lets xorriso and mtools judge a medium, and finds the settings
// volume the way a node does.
func TestMedium(t *testing.T) {
	needTool(t, "grub-mkrescue")
	image := buildFake(t, fakeFiles(t))
	bundle := filepath.Join(t.TempDir(), "school")
	if err := os.MkdirAll(filepath.Join(bundle, "files/etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "rune.toml"), []byte("# a rune\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	iso := filepath.Join(t.TempDir(), "x.iso")
	marker, err := BuildMedium(context.Background(), MediumConfig{Image: image, Owner: fakeKey().Public(), Output: iso, Runes: []string{bundle}, Arguments: []string{"quiet"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, filepath.Dir(iso)); !slices.Equal(got, []string{"x.iso"}) {
		t.Errorf("beside the medium: %v", got)
	}

	about := runTool(t, "xorriso", "-indev", iso, "-pvd_info", "-report_el_torito", "plain")
	for _, want := range []string{"Volume Id    : " + media.Label, "El Torito boot img :   1  BIOS", "El Torito boot img :   2  UEFI"} {
		if !strings.Contains(about, want) {
			t.Errorf("xorriso does not say %q:\n%s", want, about)
		}
	}
	out := t.TempDir()
	runTool(t, "xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/viver", filepath.Join(out, "viver"), "-extract", "/boot/grub/grub.cfg", filepath.Join(out, "grub.cfg"))
	v, err := Verify(context.Background(), filepath.Join(out, media.ImagePath), fakeKey().Public(), nil)
	if err != nil || v.Err() != nil {
		t.Fatalf("the image on the medium: %v, %v", err, v.Err())
	}
	f, err := os.Open(filepath.Join(out, media.MarkerPath))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := media.ReadMarker(f); err != nil || got != marker || got.Image != v.Manifest.Infohash {
		t.Errorf("marker %+v, %v, want %+v", got, err, marker)
	}
	grub, err := os.ReadFile(filepath.Join(out, "grub.cfg"))
	if err != nil || !strings.Contains(string(grub), "linux /viver/image/vmlinuz viver.medium="+marker.ID+" $consoles quiet") ||
		!strings.Contains(string(grub), "initrd /viver/image/initramfs.img /viver/image/drivers.img\n") ||
		!strings.Contains(string(grub), "\nset fallback=2\n") || strings.Count(string(grub), "\nmenuentry ") != 3 {
		t.Errorf("grub.cfg: %v:\n%s", err, grub)
	}
	runTool(t, "grub-script-check", filepath.Join(out, "grub.cfg"))
	checkEFI(t, iso, image, marker)

	disk, err := os.Open(iso)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	fi, err := disk.Stat()
	if err != nil {
		t.Fatal(err)
	}
	p, err := media.SettingsVolume(disk, fi.Size())
	if err != nil || p.Size != settingsSize {
		t.Fatalf("settings volume %+v, %v", p, err)
	}
	t.Setenv("MTOOLS_SKIP_CHECK", "1")
	at := fmt.Sprintf("%s@@%d", iso, p.Offset)
	if got := runTool(t, "mtype", "-i", at, "::"+media.SettingsPath); got != string(defaultSettings) {
		t.Errorf("settings on the volume:\n%s", got)
	}
	if got := runTool(t, "mtype", "-i", at, "::"+media.RunesPath+"/school/rune.toml"); got != "# a rune\n" {
		t.Errorf("rune on the volume: %q", got)
	}
}

// checkEFI looks at what UEFI boots: the partition of a stick and the boot image
// of a CD are one file system with the image's own pair of programs.
func checkEFI(t *testing.T, iso, image string, marker media.Marker) {
	t.Helper()
	out := t.TempDir()
	runTool(t, "xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/efi.img", filepath.Join(out, "efi.img"),
		"-extract", "/grub/grub.cfg", filepath.Join(out, "grub.cfg"), "-extract", "/boot/grub/viver-"+marker.ID, filepath.Join(out, "mark"))
	efi, err := os.ReadFile(filepath.Join(out, "efi.img"))
	if err != nil {
		t.Fatal(err)
	}
	disk, err := os.ReadFile(iso)
	if err != nil {
		t.Fatal(err)
	}
	partitions, err := media.Partitions(bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(partitions, func(p media.Partition) bool { return bytes.Equal(disk[p.Offset:p.Offset+p.Size], efi) }) {
		t.Errorf("none of %v is the CD's EFI boot image", partitions)
	}
	t.Setenv("MTOOLS_SKIP_CHECK", "1")
	for from, to := range map[string]string{
		filepath.Join(image, "boot/shimx64.efi"): "::EFI/BOOT/BOOTX64.EFI",
		filepath.Join(image, "boot/grubx64.efi"): "::EFI/BOOT/grubx64.efi",
		filepath.Join(image, "boot/mmx64.efi"):   "::EFI/BOOT/mmx64.efi",
		filepath.Join(out, "grub.cfg"):           "::grub/grub.cfg",
	} {
		got := filepath.Join(out, "got")
		runTool(t, "mcopy", "-n", "-o", "-i", filepath.Join(out, "efi.img"), to, got)
		runTool(t, "cmp", got, from)
	}
	runTool(t, "grub-script-check", filepath.Join(out, "grub.cfg"))
}

func TestMediumRefusesBadSettings(t *testing.T) {
	needTool(t, "grub-mkrescue")
	image := buildFake(t, fakeFiles(t))
	settings := filepath.Join(t.TempDir(), "viver.toml")
	if err := os.WriteFile(settings, []byte("[network]\npool = \"8.8.8.0/24\"\nspeed = 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, err := BuildMedium(context.Background(), MediumConfig{Image: image, Owner: fakeKey().Public(), Output: filepath.Join(dir, "x.iso"), Settings: settings})
	for _, want := range []string{"line 2: network.pool", "line 3: network.speed"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

// TestDefaultSettings holds the commented file to the table of settings: it is
// valid, names every setting, and shows the values that hold without it.
func TestDefaultSettings(t *testing.T) {
	c := config.New()
	c.AddTOML(config.Medium, defaultSettings)
	if p := c.Problems(); len(p) > 0 {
		t.Errorf("as shipped: %v", p)
	}
	for _, s := range c.List() {
		if s.Source != config.Default {
			t.Errorf("as shipped it sets %s", s.Name)
		}
	}
	all := regexp.MustCompile(`(?m)^#([a-z-]+ = )`).ReplaceAll(defaultSettings, []byte("$1"))
	c = config.New()
	c.AddTOML(config.Medium, all)
	if p := c.Problems(); len(p) > 0 {
		t.Errorf("uncommented: %v", p)
	}
	defaults := config.New().List()
	for i, s := range c.List() {
		if s.Source != config.Medium {
			t.Errorf("%s is not in the file", s.Name)
		}
		if s.Value != defaults[i].Value && s.Name != "ssh.authorized-keys" {
			t.Errorf("%s: the file shows %q, the default is %q", s.Name, s.Value, defaults[i].Value)
		}
	}
}

func TestWriteMediumToAFile(t *testing.T) {
	needTool(t, "xorriso")
	dir := t.TempDir()
	iso, other, target := filepath.Join(dir, "x.iso"), filepath.Join(dir, "other.iso"), filepath.Join(dir, "stick")
	runTool(t, "xorriso", "-as", "mkisofs", "-quiet", "-V", media.Label, "-o", iso, t.TempDir())
	runTool(t, "xorriso", "-as", "mkisofs", "-quiet", "-V", "OTHER", "-o", other, t.TempDir())
	if _, err := WriteMedium(context.Background(), iso, target, false, nil); err != nil {
		t.Fatal(err)
	}
	runTool(t, "cmp", iso, target)
	if _, err := WriteMedium(context.Background(), other, target, true, nil); err == nil || !strings.Contains(err.Error(), "not a VIVER medium") {
		t.Errorf("another ISO: %v", err)
	}
	for _, none := range []string{"/dev/viver-test-no-device", "/dev/null", dir} {
		if _, err := WriteMedium(context.Background(), iso, none, true, nil); err == nil || !strings.Contains(err.Error(), "not a block device") {
			t.Errorf("%s: %v", none, err)
		}
	}
	if _, err := os.Stat("/dev/viver-test-no-device"); err == nil {
		t.Error("a file among the devices")
		os.Remove("/dev/viver-test-no-device")
	}
	if _, err := WriteMedium(context.Background(), iso, "/dev/null", true, nil); err == nil {
		t.Error("wrote to a character device")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := WriteMedium(ctx, iso, filepath.Join(dir, "half"), false, nil); err == nil {
		t.Error("not interrupted")
	}
	if got := names(t, dir); !slices.Equal(got, []string{"other.iso", "stick", "x.iso"}) {
		t.Errorf("left behind: %v", got)
	}
}

// A stick whose writing is broken off boots nothing: neither the medium that was
// on it before nor half of the new one.
func TestBrokenOffMedium(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, fill byte) *os.File {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if _, err := f.Write(bytes.Repeat([]byte{fill}, 12<<20)); err != nil {
			t.Fatal(err)
		}
		return f
	}
	in, stick := write("new", 1), write("stick", 2)
	ctx, cancel := context.WithCancel(t.Context())
	w := mediumWriter{in: in, size: 12 << 20, progress: func(string, int64, int64) { cancel() }}
	if err := w.copy(ctx, stick); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	got := make([]byte, head)
	if _, err := stick.ReadAt(got, 0); err != nil || !bytes.Equal(got, make([]byte, head)) {
		t.Errorf("the stick begins with %x…, %v; want nothing", got[:8], err)
	}
	w.progress = func(string, int64, int64) {}
	if err := w.copy(t.Context(), stick); err != nil {
		t.Fatal(err)
	}
	runTool(t, "cmp", in.Name(), stick.Name())
}

// sysfs is a fake /sys with one USB stick of two partitions.
func sysfs(t *testing.T, changes ...file) string {
	t.Helper()
	disk := "devices/pci0000:00/usb2/2-1/block/sdb/"
	root := writeTree(t, change([]file{
		{name: disk + "size", data: "131072\n"}, {name: disk + "removable", data: "1\n"}, {name: disk + "dev", data: "8:16\n"},
		{name: disk + "device/vendor", data: "ACME    \n"}, {name: disk + "device/model", data: "Stick\n"},
		{name: disk + "sdb1/partition", data: "1\n"}, {name: disk + "sdb1/dev", data: "8:17\n"}, {name: disk + "sdb1/size", data: "1000\n"},
		{name: "devices/pci0000:00/ata1/block/sda/size", data: "131072\n"}, {name: "devices/pci0000:00/ata1/block/sda/removable", data: "0\n"},
	}, changes...))
	if err := os.MkdirAll(filepath.Join(root, "dev/block"), 0o755); err != nil {
		t.Fatal(err)
	}
	for number, target := range map[string]string{"8:16": "../../" + disk, "8:17": "../../" + disk + "sdb1", "8:0": "../../devices/pci0000:00/ata1/block/sda"} {
		if err := os.Symlink(strings.TrimSuffix(target, "/"), filepath.Join(root, "dev/block", number)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestMayWrite(t *testing.T) {
	stick := "devices/pci0000:00/usb2/2-1/block/sdb/"
	for _, c := range []struct {
		name    string
		minor   uint32
		changes []file
		mounts  []mount
		size    int64
		force   bool
		want    string // part of the refusal, "" for permission
	}{
		{name: "stick", minor: 16},
		{name: "hard disk in a USB case", minor: 16, changes: []file{{name: stick + "removable", data: "0\n"}}, want: "a disk on USB and no stick, so somebody may need what is on it: sdb1 0 MiB; --yes"},
		{name: "hard disk in a USB case, sure", minor: 16, changes: []file{{name: stick + "removable", data: "0\n"}}, force: true},
		{name: "swapped to", minor: 16, mounts: []mount{{device: "8:17", point: swapPoint}}, force: true, want: "swapoff first"},
		{name: "disk of the machine", minor: 0, want: "not removable"},
		{name: "disk of the machine, sure", minor: 0, force: true},
		{name: "mounted", minor: 16, mounts: []mount{{device: "8:16", point: "/mnt"}}, want: "mounted on /mnt"},
		{name: "partition mounted", minor: 16, mounts: []mount{{device: "8:17", point: "/media/x"}}, force: true, want: "mounted on /media/x"},
		{name: "another disk mounted", minor: 16, mounts: []mount{{device: "8:1", point: "/"}}},
		{name: "holder", minor: 16, changes: []file{{name: stick + "holders/dm-0", data: ""}}, force: true, want: "in use by dm-0"},
		{name: "holder of a partition", minor: 16, changes: []file{{name: stick + "sdb1/holders/md0", data: ""}}, force: true, want: "in use by md0"},
		{name: "partition", minor: 17, force: true, want: "takes the whole device"},
		{name: "too small", minor: 16, size: 65 << 20, force: true, want: "too small"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := readDevice(sysfs(t, c.changes...), 8, c.minor)
			if err != nil {
				t.Fatal(err)
			}
			err = d.mayWrite(c.mounts, max(c.size, 1<<20), c.force)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if d, err := readDevice(sysfs(t), 8, 16); err != nil || d.String() != "ACME Stick 64 MiB" {
		t.Errorf("got %q, %v", d, err)
	}
	if _, err := readDevice(sysfs(t), 9, 9); err == nil {
		t.Error("found a device that is not there")
	}
}
