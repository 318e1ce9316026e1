package bootmedium

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/config"
	"viver.lan/internal/imagebuild"
	"viver.lan/internal/imagebuild/imagebuildtest"
	"viver.lan/internal/imagedir"
	"viver.lan/internal/manifest"
	"viver.lan/internal/media"
	"viver.lan/internal/mountinfo"
	"viver.lan/internal/sign"
	"viver.lan/internal/testlinux"
)

// TestMedium lets xorriso and mtools judge a medium, and finds the settings
// volume the way a node does.
func TestMedium(t *testing.T) {
	testlinux.Tool(t, "grub-mkrescue")
	image := imagebuildtest.Build(t, testlinux.Files(t))
	bundle := filepath.Join(t.TempDir(), "school")
	if err := os.MkdirAll(filepath.Join(bundle, "files/etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "rune.toml"), []byte("name = \"school\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	iso := filepath.Join(t.TempDir(), "x.iso")
	marker, err := Build(context.Background(), Config{Images: []string{image}, Owner: testlinux.Key().Public(), Output: iso, Runes: []string{bundle}, Arguments: []string{"quiet"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := testlinux.Names(t, filepath.Dir(iso)); !slices.Equal(got, []string{"x.iso"}) {
		t.Errorf("beside the medium: %v", got)
	}

	whole, err := os.Open(iso)
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	if end, err := media.ISOSize(whole); err != nil {
		t.Error(err)
	} else if list := contents(whole, end); list != nil {
		t.Errorf("taken for something else than a medium: %q", list)
	}

	about := testlinux.Run(t, "xorriso", "-indev", iso, "-pvd_info", "-report_el_torito", "plain")
	for _, want := range []string{"Volume Id    : " + media.Label, "El Torito boot img :   1  BIOS", "El Torito boot img :   2  UEFI"} {
		if !strings.Contains(about, want) {
			t.Errorf("xorriso does not say %q:\n%s", want, about)
		}
	}
	out := t.TempDir()
	testlinux.Run(t, "xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/viver", filepath.Join(out, "viver"), "-extract", "/boot/grub/grub.cfg", filepath.Join(out, "grub.cfg"))
	v, err := imagedir.Verify(context.Background(), filepath.Join(out, media.ImagePath), testlinux.Key().Public(), nil)
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
	if err != nil || !strings.Contains(string(grub), "linux /viver/image/vmlinuz viver.medium="+marker.ID+" $consoles cryptomgr.notests quiet") ||
		!strings.Contains(string(grub), "initrd /viver/image/initramfs.img /viver/image/nics.img /viver/image/drivers.img\n") ||
		!strings.Contains(string(grub), "\nset fallback=2\n") || strings.Count(string(grub), "\nmenuentry ") != 3 {
		t.Errorf("grub.cfg: %v:\n%s", err, grub)
	}
	testlinux.Run(t, "grub-script-check", filepath.Join(out, "grub.cfg"))
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
	if err != nil || p.Size != media.SettingsSize {
		t.Fatalf("settings volume %+v, %v", p, err)
	}
	t.Setenv("MTOOLS_SKIP_CHECK", "1")
	at := fmt.Sprintf("%s@@%d", iso, p.Offset)
	if got := testlinux.Run(t, "mtype", "-i", at, "::"+media.SettingsPath); got != string(defaultSettings) {
		t.Errorf("settings on the volume:\n%s", got)
	}
	if got := testlinux.Run(t, "mtype", "-i", at, "::"+media.RunesPath+"/school/rune.toml"); got != "name = \"school\"\n" {
		t.Errorf("rune on the volume: %q", got)
	}
}

// checkEFI looks at what UEFI boots: the partition of a stick and the boot image
// of a CD are one file system with the image's own pair of programs.
func checkEFI(t *testing.T, iso, image string, marker media.Marker) {
	t.Helper()
	out := t.TempDir()
	testlinux.Run(t, "xorriso", "-osirrox", "on", "-indev", iso, "-extract", "/efi.img", filepath.Join(out, "efi.img"),
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
		testlinux.Run(t, "mcopy", "-n", "-o", "-i", filepath.Join(out, "efi.img"), to, got)
		testlinux.Run(t, "cmp", got, from)
	}
	testlinux.Run(t, "grub-script-check", filepath.Join(out, "grub.cfg"))
}

func TestMediumRefusesBadSettings(t *testing.T) {
	testlinux.Tool(t, "grub-mkrescue")
	image := imagebuildtest.Build(t, testlinux.Files(t))
	settings := filepath.Join(t.TempDir(), "viver.toml")
	if err := os.WriteFile(settings, []byte("[network]\npool = \"8.8.8.0/24\"\nspeed = 3\n[runes]\noff = [\"x12\"]\n[rune.web]\nport = \"1\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	_, err := Build(context.Background(), Config{Images: []string{image}, Owner: testlinux.Key().Public(), Output: filepath.Join(dir, "x.iso"), Settings: settings})
	for _, want := range []string{"line 2: network.pool", "line 3: network.speed", `rune "x12" is to be off`, "setting rune.web: there is no rune"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if got := testlinux.Names(t, dir); len(got) != 0 {
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

func TestWriteToFile(t *testing.T) {
	testlinux.Tool(t, "xorriso")
	dir := t.TempDir()
	iso, other, target := filepath.Join(dir, "x.iso"), filepath.Join(dir, "other.iso"), filepath.Join(dir, "stick")
	testlinux.Run(t, "xorriso", "-as", "mkisofs", "-quiet", "-V", media.Label, "-o", iso, t.TempDir())
	testlinux.Run(t, "xorriso", "-as", "mkisofs", "-quiet", "-V", "OTHER", "-o", other, t.TempDir())
	if _, err := Write(context.Background(), iso, target, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	testlinux.Run(t, "cmp", iso, target)
	if _, err := Write(context.Background(), other, target, WriteOptions{Force: true}); err == nil || !strings.Contains(err.Error(), "not a VIVER medium") {
		t.Errorf("another ISO: %v", err)
	}
	for _, none := range []string{"/dev/viver-test-no-device", "/dev/null", dir} {
		if _, err := Write(context.Background(), iso, none, WriteOptions{Force: true}); err == nil || !strings.Contains(err.Error(), "not a block device") {
			t.Errorf("%s: %v", none, err)
		}
	}
	if _, err := os.Stat("/dev/viver-test-no-device"); err == nil {
		t.Error("a file among the devices")
		os.Remove("/dev/viver-test-no-device")
	}
	if _, err := Write(context.Background(), iso, "/dev/null", WriteOptions{Force: true}); err == nil {
		t.Error("wrote to a character device")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Write(ctx, iso, filepath.Join(dir, "half"), WriteOptions{}); err == nil {
		t.Error("not interrupted")
	}
	if got := testlinux.Names(t, dir); !slices.Equal(got, []string{"other.iso", "stick", "x.iso"}) {
		t.Errorf("left behind: %v", got)
	}
}

// A stick whose writing is broken off boots nothing: neither the medium that was
// on it before nor half of the new one.
func TestInterruptedWriteBootsNothing(t *testing.T) {
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
	w := writer{size: 12 << 20, fill: copyOf(in), WriteOptions: WriteOptions{Progress: func(string, int64, int64) { cancel() }}}
	if err := w.writeAndVerify(ctx, stick); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	got := make([]byte, head)
	if _, err := stick.ReadAt(got, 0); err != nil || !bytes.Equal(got, make([]byte, head)) {
		t.Errorf("the stick begins with %x…, %v; want nothing", got[:8], err)
	}
	w.Progress = func(string, int64, int64) {}
	if err := w.writeAndVerify(t.Context(), stick); err != nil {
		t.Fatal(err)
	}
	testlinux.Run(t, "cmp", in.Name(), stick.Name())
}

// sysfs is a fake /sys with one USB stick of two partitions.
func sysfs(t *testing.T, changes ...testlinux.File) string {
	t.Helper()
	disk := "devices/pci0000:00/usb2/2-1/block/sdb/"
	root := testlinux.Write(t, testlinux.Change([]testlinux.File{
		{Name: disk + "size", Data: "131072\n"}, {Name: disk + "removable", Data: "1\n"}, {Name: disk + "dev", Data: "8:16\n"},
		{Name: disk + "device/vendor", Data: "ACME    \n"}, {Name: disk + "device/model", Data: "Stick\n"},
		{Name: disk + "sdb1/partition", Data: "1\n"}, {Name: disk + "sdb1/dev", Data: "8:17\n"}, {Name: disk + "sdb1/size", Data: "1000\n"},
		{Name: "devices/pci0000:00/ata1/block/sda/size", Data: "131072\n"}, {Name: "devices/pci0000:00/ata1/block/sda/removable", Data: "0\n"},
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
		changes []testlinux.File
		mounts  []mountinfo.Mount
		size    int64
		force   bool
		want    string // part of the refusal, "" for permission
	}{
		{name: "stick", minor: 16},
		{name: "hard disk in a USB case", minor: 16, changes: []testlinux.File{{Name: stick + "removable", Data: "0\n"}}, want: "a disk on USB and no stick, so somebody may need what is on it: sdb1 0 MiB; --yes"},
		{name: "hard disk in a USB case, sure", minor: 16, changes: []testlinux.File{{Name: stick + "removable", Data: "0\n"}}, force: true},
		{name: "swapped to", minor: 16, mounts: []mountinfo.Mount{{Device: "8:17", Point: swapPoint}}, force: true, want: "swapoff first"},
		{name: "disk of the machine", minor: 0, want: "not removable"},
		{name: "disk of the machine, sure", minor: 0, force: true},
		{name: "mounted", minor: 16, mounts: []mountinfo.Mount{{Device: "8:16", Point: "/mnt"}}, want: "mounted on /mnt"},
		{name: "partition mounted", minor: 16, mounts: []mountinfo.Mount{{Device: "8:17", Point: "/media/x"}}, force: true, want: "mounted on /media/x"},
		{name: "another disk mounted", minor: 16, mounts: []mountinfo.Mount{{Device: "8:1", Point: "/"}}},
		{name: "holder", minor: 16, changes: []testlinux.File{{Name: stick + "holders/dm-0", Data: ""}}, force: true, want: "in use by dm-0"},
		{name: "holder of a partition", minor: 16, changes: []testlinux.File{{Name: stick + "sdb1/holders/md0", Data: ""}}, force: true, want: "in use by md0"},
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

// secretFiles makes an owner's key and returns its path and its telling line.
func secretFiles(t *testing.T) (path, line string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), sign.KeyFile)
	if _, _, err := sign.OpenKey(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, strings.Split(string(data), "\n")[1]
}

// TestNoSigningKeyInImageOrMedium builds from a machine that has copies of its
// owner's key: none of them is in what is served.
func TestNoSigningKeyInImageOrMedium(t *testing.T) {
	path, secret := secretFiles(t)
	key, err := sign.ReadPrivateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	source := testlinux.Write(t, testlinux.Change(testlinux.Files(t),
		testlinux.File{Name: "root/.config/viver/owner.key", Data: string(text), Mode: 0o600},
		testlinux.File{Name: "root/.config/viver/owner.pub", Data: string(key.Public().Text())},
		testlinux.File{Name: "home/ann/.config/viver/second.key", Data: string(text), Mode: 0o600},
		testlinux.File{Name: "srv/backup/key", Data: string(text), Mode: 0o600}))
	if err := os.Link(filepath.Join(source, "srv/backup/key"), filepath.Join(source, "srv/linked")); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "x")
	var notes []string
	c := imagebuild.Config{Source: source, Output: image, Lib: testlinux.Lib(t), Key: key, Level: 1, Note: func(s string) { notes = append(notes, s) }}
	testlinux.Tool(t, "mksquashfs")
	if _, err := imagebuild.Build(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(notes, func(s string) bool {
		return strings.HasPrefix(s, "emptied, a key that signs images") && strings.Contains(s, "/srv/backup/key")
	}) {
		t.Errorf("not said: %q", notes)
	}
	out := filepath.Join(t.TempDir(), "root")
	testlinux.Run(t, "unsquashfs", "-quiet", "-no-progress", "-d", out, filepath.Join(image, manifest.Root))
	clean := func(dir string) {
		t.Helper()
		files := 0
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			files++
			data, err := os.ReadFile(p)
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s holds the owner's key", p)
			}
			return err
		})
		if err != nil || files < 5 {
			t.Errorf("%s: %d files, %v", dir, files, err)
		}
	}
	clean(out)
	for name, want := range map[string]bool{"root/.config/viver/owner.key": false, "home/ann/.config/viver/second.key": false,
		"root/.config/viver/owner.pub": true, "srv/backup/key": true, "srv/linked": true} {
		if _, err := os.Stat(filepath.Join(out, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}

	testlinux.Tool(t, "grub-mkrescue")
	// The key was kept in the image's directory: a habit, and a trap.
	if err := os.WriteFile(filepath.Join(image, "owner.key"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(t.TempDir(), "school")
	if err := os.MkdirAll(filepath.Join(bundle, "files/root"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"rune.toml": []byte("name = \"school\"\n"), "files/root/mine": text} {
		if err := os.WriteFile(filepath.Join(bundle, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := Config{Images: []string{image}, Owner: key.Public(), Output: filepath.Join(t.TempDir(), "x.iso"), Runes: []string{bundle}}
	if _, err := Build(context.Background(), m); err == nil || !strings.Contains(err.Error(), "mine is a key that signs images") {
		t.Errorf("a key in a bundle: %v", err)
	}
	if err := os.Remove(filepath.Join(bundle, "files/root/mine")); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(context.Background(), m); err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(t.TempDir(), "iso")
	testlinux.Run(t, "xorriso", "-osirrox", "on", "-indev", m.Output, "-extract", "/", tree)
	testlinux.Run(t, "chmod", "-R", "u+rwX", tree) // or the test cannot clear it away
	clean(tree)
	want := []string{"boot", manifest.Metainfo, manifest.Initramfs, manifest.Drivers, manifest.File, manifest.Signature, manifest.NICs, manifest.Root, manifest.Kernel}
	slices.Sort(want)
	if got := testlinux.Names(t, filepath.Join(tree, media.ImagePath)); !slices.Equal(got, want) {
		t.Errorf("the image on the medium: %v, want %v", got, want)
	}
	// The whole ISO too, with the settings volume behind the file system.
	iso, err := os.ReadFile(m.Output)
	if err != nil || bytes.Contains(iso, []byte(secret)) {
		t.Error("the ISO holds the owner's key", errors.Join(err))
	}
}

// Nothing but a whole image of the owner's gets onto a medium.
func TestMediumRefusesImages(t *testing.T) {
	testlinux.Tool(t, "grub-mkrescue")
	image := imagebuildtest.Build(t, testlinux.Files(t))
	stranger, err := sign.Generate()
	if err != nil {
		t.Fatal(err)
	}
	iso := filepath.Join(t.TempDir(), "x.iso")
	if _, err := Build(context.Background(), Config{Images: []string{image}, Owner: stranger.Public(), Output: iso}); !errors.Is(err, imagedir.ErrNotOwner) {
		t.Errorf("another owner's: %v", err)
	}
	if err := os.Truncate(filepath.Join(image, manifest.Root), 5000); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(context.Background(), Config{Images: []string{image}, Owner: testlinux.Key().Public(), Output: iso}); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a damaged one: %v", err)
	}
	if _, err := os.Stat(iso); err == nil {
		t.Error("a medium was made")
	}
}

// What is on a stick is said, so that its owner can answer; a stick with nothing, half a
// medium, or a whole one with saved data needs no question, but what somebody else put
// on a medium does.
func TestWhatAStickHas(t *testing.T) {
	const size = 8 << 20
	stick := func(make ...string) *os.File {
		f := emptyFile(t, size)
		if len(make) > 0 {
			testlinux.Run(t, make[0], append(make[1:], f.Name())...)
		}
		return f
	}
	medium := func(script string, args ...string) *os.File {
		f, efi := stick(), emptyFile(t, mib)
		// What grub-mkrescue gives xorriso makes the file system as large as the medium.
		testlinux.Run(t, "xorriso", "-as", "mkisofs", "-quiet", "--protective-msdos-label", "-efi-boot-part", efi.Name(), "-V", media.Label, "-o", f.Name(), t.TempDir())
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if script != "" {
			testlinux.Run(t, "sfdisk", "--quiet", "--relocate", "gpt-bak-std", f.Name())
			cmd := exec.CommandContext(t.Context(), testlinux.Tool(t, "sfdisk"), append(args, "--quiet", "--wipe", "never", f.Name())...)
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("sfdisk: %v: %s", err, out)
			}
		}
		return f
	}
	const behind = "start=4M, size=2M, name=VIVERDATA\n"
	saved := medium(behind, "--append")
	testlinux.Run(t, "mkfs.ext4", "-q", "-F", "-L", media.DataLabel, "-E", "offset=4194304", saved.Name(), "2048k")
	overwritten := medium("")
	if _, err := overwritten.WriteAt(make([]byte, 16<<10), 0); err != nil {
		t.Fatal(err)
	}
	raw := stick()
	if _, err := raw.WriteAt([]byte("a tar, say"), 5000); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		stick *os.File
		want  string
	}{
		{"nothing", stick(), ""},
		{"a medium", medium(""), ""},
		{"a medium with saved data", saved, ""},
		{"a medium with damaged data", medium(behind, "--append"), "partition 4 (data of an unknown kind, 2 MiB)"},
		{"another table over a medium", medium("label: gpt\nstart=1M, size=1M\n"), "partition 1 (data of an unknown kind, 1 MiB)"},
		{"something else over a medium", overwritten, "data of an unknown kind where a medium was"},
		{"a file system", stick("mkfs.vfat", "-n", "PHOTOS"), "vfat PHOTOS"},
		{"a partition", tableOf(t, size), "partition 1 (data of an unknown kind, 4 MiB)"},
		{"something else", raw, "data of an unknown kind"},
	} {
		if got := strings.Join(contents(tt.stick, size), ", "); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		var asked string
		w := writer{WriteOptions: WriteOptions{Confirm: func(q string) (bool, error) { asked = q; return false, nil }}}
		d := device{model: "ACME Stick", size: size}
		if err := w.mayReplace(tt.stick, d); (err == nil) != (tt.want == "") || tt.want != "" && asked != "ACME Stick 8 MiB has "+tt.want+". All of that is lost." {
			t.Errorf("%s: %v, asked %q", tt.name, err, asked)
		}
		w.Force = true
		if err := w.mayReplace(tt.stick, d); err != nil {
			t.Errorf("%s, forced: %v", tt.name, err)
		}
	}
}
