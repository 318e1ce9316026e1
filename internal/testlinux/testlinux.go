// Package testlinux has a small installed Linux, for tests: files whose kernel,
// modules and programs are none, but pass for some.
package testlinux

import (
	"archive/tar"
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"

	"viver.lan/internal/hosttool"
	"viver.lan/internal/manifest"
	"viver.lan/internal/sign"
	"viver.lan/kernelconfig"
)

// Release is the kernel's.
const Release = "6.1.0-9-test"

// Kernel is the head of an x86-64 kernel image that names a release.
func Kernel(release string) []byte {
	k := make([]byte, 8192)
	copy(k[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(k[0x20e:], 0x1000)
	binary.LittleEndian.PutUint16(k[0x236:], 1) // XLF_KERNEL_64
	copy(k[0x1200:], release+" (builder@host) #1 SMP\x00")
	return k
}

// Config satisfies package kernelconfig, with modules where it may.
func Config(t testing.TB) string {
	t.Helper()
	options, err := kernelconfig.Options()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, o := range options {
		value := "y"
		if o.Need == kernelconfig.Module {
			value = "m"
		}
		fmt.Fprintf(&b, "CONFIG_%s=%s\n", o.Names()[0], value)
	}
	return b.String()
}

// Modules lists module files, what they need, and which file of an image has them.
var Modules = []struct {
	File string
	Deps []string
	In   string // "" if no file has
}{
	{"kernel/drivers/block/nbd.ko", nil, manifest.Initramfs},
	{"kernel/drivers/block/loop.ko", nil, manifest.Initramfs},
	{"kernel/fs/squashfs/squashfs.ko", nil, manifest.Initramfs},
	{"kernel/fs/overlayfs/overlay.ko", nil, manifest.Initramfs},
	{"kernel/fs/isofs/isofs.ko", []string{"kernel/drivers/cdrom/cdrom.ko"}, manifest.Drivers},
	{"kernel/drivers/cdrom/cdrom.ko", nil, manifest.Drivers},
	{"kernel/fs/fat/fat.ko", nil, manifest.Drivers},
	{"kernel/fs/fat/vfat.ko", []string{"kernel/fs/fat/fat.ko"}, manifest.Drivers},
	{"kernel/net/packet/af_packet.ko", nil, manifest.Initramfs},
	{"kernel/fs/ext4/ext4.ko", []string{"kernel/lib/crc16.ko"}, manifest.Drivers},
	{"kernel/crypto/crc32c_odd.ko", nil, manifest.Drivers},
	{"kernel/drivers/net/ethernet/intel/e1000/e1000.ko", nil, manifest.NICs},
	{"kernel/drivers/net/usb/r8152.ko", []string{"kernel/lib/crc16.ko", "kernel/drivers/net/mii.ko"}, manifest.NICs},
	{"kernel/drivers/net/mii.ko", nil, manifest.NICs},
	{"kernel/drivers/net/ethernet/realtek/r8169.ko", []string{"kernel/drivers/net/mii.ko", "kernel/drivers/net/phy/libphy.ko"}, manifest.NICs},
	{"kernel/drivers/net/phy/libphy.ko", nil, manifest.NICs},
	{"kernel/drivers/net/phy/realtek.ko", []string{"kernel/drivers/net/phy/libphy.ko"}, manifest.NICs},
	{"kernel/drivers/net/vmxnet3/vmxnet3.ko", nil, manifest.Initramfs},
	{"kernel/lib/crc16.ko", nil, manifest.Initramfs}, // for a disk and a network adapter
	{"kernel/lib/sum_wished.ko", nil, manifest.Initramfs},
	{"kernel/sound/sound-core.ko", nil, ""},
}

// File is one file of a fake tree; mode 0 means 0644.
type File struct {
	Name string // no leading slash
	Data string
	Mode os.FileMode
}

// Files is a tree that can boot.
func Files(t testing.TB) []File {
	dir := "lib/modules/" + Release + "/"
	files := []File{
		{"boot/vmlinuz-" + Release, string(Kernel(Release)), 0},
		{"boot/config-" + Release, Config(t), 0},
		{"boot/initrd.img-" + Release, "of no use", 0},
		{"sbin/init", "#!/bin/sh\n", 0o755},
		{"etc/os-release", "ID=fake\nPRETTY_NAME=\"Fake Linux 1\"\n", 0},
		{"etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o444},
		{"etc/hostname", "workshop\n", 0},
		{"etc/ssh/sshd_config", "# fine\n", 0},
		{"etc/ssh/ssh_host_ed25519_key", "secret", 0o600},
		{"etc/fstab", "UUID=1 / ext4 defaults 0 1\n/dev/sda2 none swap sw 0 0\nserver:/home /home nfs defaults 0 0\n", 0},
		{"proc/cpuinfo", "x", 0},
		{"tmp/junk", "x", 0},
		{"var/cache/apt/archives/a.deb", "x", 0},
		{"swapfile", "x", 0o600},
		{"usr/share/text", strings.Repeat("all work and no play\n", 1000), 0},
		{dir + "modules.builtin", "kernel/fs/ext2/ext2.ko\n", 0},
		{dir + "modules.builtin.modinfo", "ext2.description=x\x00ext2.license=GPL\x00", 0},
		{dir + "modules.softdep", "# comment\nsoftdep ext4 pre: crc32c\nsoftdep r8152 post: sum_wished\nsoftdep vfat pre: sum_wished\n", 0},
		{dir + "modules.alias", "# comment\nalias crc32c crc32c_odd\nalias pci:v00008086d0000100Esv*sd*bc*sc*i* e1000\nalias pci:v000010ECd00008168sv*sd*bc*sc*i* r8169\nalias pci:v000015ADd000007B0sv*sd*bc*sc*i* vmxnet3\nalias char-major-14-* sound_core\n", 0},
		{dir + "modules.symbols", "# not needed\n", 0},
	}
	var dep, order strings.Builder
	for _, m := range Modules {
		fmt.Fprintf(&dep, "%s: %s\n", m.File, strings.Join(m.Deps, " "))
		fmt.Fprintln(&order, m.File)
		files = append(files, File{dir + m.File, "module " + m.File, 0})
	}
	return append(files, File{dir + "modules.dep", dep.String(), 0}, File{dir + "modules.order", order.String(), 0})
}

// Write lays files out in a new directory. The times are fixed, so that
// two trees with the same files are the same tree.
func Write(t testing.TB, files []File) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range files {
		name := filepath.Join(root, f.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := cmp.Or(f.Mode, 0o644)
		if err := os.WriteFile(name, []byte(f.Data), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	err := filepath.WalkDir(root, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(p, time.Unix(1e9, 0), time.Unix(1e9, 0))
	})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// FS is files in memory.
func FS(files []File) fs.FS {
	m := make(fstest.MapFS)
	for _, f := range files {
		m[f.Name] = &fstest.MapFile{Data: []byte(f.Data), Mode: cmp.Or(f.Mode, 0o644), ModTime: time.Unix(1e9, 0)}
	}
	return m
}

// Change replaces, adds or (with data "-") removes files.
func Change(files []File, changes ...File) []File {
	out := slices.Clone(files)
	for _, c := range changes {
		out = slices.DeleteFunc(out, func(f File) bool { return f.Name == c.Name })
		if c.Data != "-" {
			out = append(out, c)
		}
	}
	return out
}

// Noise is n bytes that do not compress, the same on every call.
func Noise(n int) string {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	r.Read(b)
	return string(b)
}

// Lib is a lib directory with a Go part and boot programs.
func Lib(t testing.TB) string {
	t.Helper()
	lib := t.TempDir()
	var goPart bytes.Buffer
	w := cpio.Newc.Writer(&goPart)
	if err := cpio.WriteRecords(w, []cpio.Record{cpio.StaticFile("init", "the Go part", 0o644)}); err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	goPart.Write(make([]byte, -goPart.Len()&511)) // as build.sh pads it
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(lib, "initramfs-go.cpio.zst"), z.EncodeAll(goPart.Bytes(), nil), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(lib, "boot"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"undionly.kpxe", "shimx64.efi", "grubx64.efi", "mmx64.efi"} {
		if err := os.WriteFile(filepath.Join(lib, "boot", name), []byte(Noise(100+len(name))), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return lib
}

// Key is the owner of the images made here: one for the whole run, because
// another owner's image is another image.
var Key = sync.OnceValue(func() sign.PrivateKey {
	key, err := sign.Generate()
	if err != nil {
		panic(err)
	}
	return key
})

// Tool returns the path of a program; without it the test is skipped.
func Tool(t testing.TB, name string) string {
	t.Helper()
	p, err := hosttool.Find(name)
	if err != nil {
		t.Skip(err)
	}
	return p
}

// Run runs a program and returns what it printed.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(Tool(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Squashfs makes a squashfs of a tar archive, as package rootfs does, and returns its bytes,
// which depend on the arguments only.
func Squashfs(t testing.TB, archive io.Reader, flags ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "squashfs")
	cmd := exec.Command(Tool(t, "mksquashfs"), append([]string{"-", out, "-tar", "-comp", "zstd", "-no-progress", "-quiet"}, flags...)...)
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=2000000000")
	cmd.Stdin = archive
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mksquashfs: %v\n%s", err, text)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Names lists a directory.
func Names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// Members lists a tar stream: name, type, link, content.
func Members(t testing.TB, r io.Reader) []string {
	t.Helper()
	var list []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, strings.Join([]string{h.Name, string(h.Typeflag), h.Linkname, string(data)}, "|"))
	}
}
