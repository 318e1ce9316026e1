package imagebuild

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/u-root/pkg/cpio"
	"github.com/ulikunitz/xz"

	"viver.lan/internal/manifest"
)

func TestBuild(t *testing.T) {
	image := buildFake(t, fakeFiles(t))
	v, err := Verify(context.Background(), image, fakeKey().Public(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Err(); err != nil {
		t.Fatal(err)
	}
	m := v.Manifest
	if m.Name != "fake" || m.Distribution != "Fake Linux 1" || m.KernelRelease != testRelease || m.Arch != "amd64" || !m.Created.Equal(time.Unix(1e9, 0)) {
		t.Errorf("manifest: %+v", m)
	}
	var files []string
	for _, f := range m.Files {
		files = append(files, f.Name)
	}
	if want := []string{"root.squashfs", "vmlinuz", "initramfs.img", "drivers.img", "boot/undionly.kpxe", "boot/shimx64.efi", "boot/grubx64.efi", "boot/mmx64.efi"}; !slices.Equal(files, want) {
		t.Errorf("payload %v, want %v", files, want)
	}

	list := runTool(t, "unsquashfs", "-l", filepath.Join(image, manifest.Root))
	for name, want := range map[string]bool{
		"/etc/ssh/sshd_config": true, "/etc/ssh/ssh_host_ed25519_key": false, "/swapfile": false, "/proc": true,
		"/proc/cpuinfo": false, "/tmp/junk": false, "/boot/initrd.img-" + testRelease: false,
		"/lib/modules/" + testRelease + "/kernel/sound/sound-core.ko": true,
	} {
		if got := strings.Contains(list, "squashfs-root"+name+"\n"); got != want {
			t.Errorf("%s in the root file system: %v, want %v", name, got, want)
		}
	}
	cat := func(name string) string {
		return runTool(t, "unsquashfs", "-cat", filepath.Join(image, manifest.Root), name)
	}
	if got := cat("etc/machine-id"); got != "" {
		t.Errorf("machine-id %q", got)
	}
	if got := cat("etc/fstab"); !strings.HasPrefix(got, "# not on a diskless node: UUID=1") {
		t.Errorf("fstab %q", got)
	}
}

func TestTheSourceIsNotChanged(t *testing.T) {
	needTool(t, "mksquashfs")
	root := writeTree(t, fakeFiles(t))
	snapshot := func() string {
		return runTool(t, "sh", "-c", "cd "+root+" && find . -type f | sort | xargs sha256sum; find . -printf '%p %m %s %t\\n' | sort")
	}
	before := snapshot()
	if _, err := Build(context.Background(), Config{Source: root, Output: filepath.Join(t.TempDir(), "x"), Lib: fakeLib(t), Key: fakeKey(), Level: 1}); err != nil {
		t.Fatal(err)
	}
	if after := snapshot(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestTheSameTreeIsTheSameImage(t *testing.T) {
	var hashes []string
	for range 2 {
		v, err := Verify(context.Background(), buildFake(t, fakeFiles(t)), fakeKey().Public(), nil)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, v.Manifest.Infohash.String())
		time.Sleep(1100 * time.Millisecond) // into another second of the clock
	}
	if hashes[0] != hashes[1] {
		t.Errorf("infohashes %v", hashes)
	}
}

// lastWrite keeps what was written last.
type lastWrite []byte

func (l *lastWrite) Write(p []byte) (int, error) {
	*l = append((*l)[:0], p...)
	return len(p), nil
}

// TestEndOfTheArchive: who reads the stream may leave after the first block of the
// end, so the whole end is in one write.
func TestEndOfTheArchive(t *testing.T) {
	tree, err := Scan(context.Background(), writeTree(t, fakeFiles(t)), nil)
	if err != nil {
		t.Fatal(err)
	}
	var last lastWrite
	if err := tree.writeTar(context.Background(), &last, nil, func(int64) {}); err != nil || !bytes.Equal(last, make([]byte, 1024)) {
		t.Errorf("the last write is of %d bytes: %v", len(last), err)
	}
}

// TestAttributes builds from a tar archive, as an ordinary user can, and lets
// unsquashfs say which owners, modes and attributes arrived.
func TestAttributes(t *testing.T) {
	needTool(t, "mksquashfs")
	root := writeTree(t, fakeFiles(t))
	var b bytes.Buffer
	tree, err := Scan(context.Background(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.writeTar(context.Background(), &b, nil, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	b.Truncate(b.Len() - 1024) // more members follow
	w := tar.NewWriter(&b)
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	for _, h := range []tar.Header{
		{Name: "usr/bin/su", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 0, Gid: 42},
		{Name: "usr/bin/ping", Typeflag: tar.TypeReg, Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.user.viver": capability}},
		{Name: "srv/owned", Typeflag: tar.TypeDir, Mode: 0o2770, Uid: 1234, Gid: 5678},
		{Name: "dev2/null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Name: "usr/bin/link", Typeflag: tar.TypeLink, Linkname: "usr/bin/su"},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "t.tar")
	if err := os.WriteFile(archive, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "x")
	if _, err := Build(context.Background(), Config{Source: archive, Output: image, Lib: fakeLib(t), Key: fakeKey(), Level: 1}); err != nil {
		t.Fatal(err)
	}
	squashfs := filepath.Join(image, manifest.Root)
	list := runTool(t, "unsquashfs", "-lln", squashfs)
	for _, want := range []string{"-rwsr-xr-x 0/42", "drwxrws--- 1234/5678", "crw-rw-rw- 0/0"} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
	if n := strings.Count(list, "-rwsr-xr-x 0/42"); n != 2 {
		t.Errorf("the hard link has not its file's attributes:\n%s", list)
	}
	out := filepath.Join(t.TempDir(), "out")
	runTool(t, "unsquashfs", "-quiet", "-no-progress", "-d", out, squashfs, "usr/bin/ping")
	value := make([]byte, 100)
	n, err := syscall.Getxattr(filepath.Join(out, "usr/bin/ping"), "user.viver", value)
	if err == syscall.ENOTSUP {
		t.Skip("the file system of the temporary directory has no user attributes")
	}
	if err != nil || string(value[:n]) != capability {
		t.Errorf("extended attribute %q, %v", value[:max(n, 0)], err)
	}
}

// splitInitramfs unpacks an initramfs with cpio(1) and returns the directory.
func splitInitramfs(t *testing.T, name, goPart string) string {
	t.Helper()
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	// The plain archive at its start ends at a multiple of 512 bytes.
	owner := (bytes.Index(whole, []byte(cpio.Trailer)) + 511) / 512 * 512
	plain := decompressed(t, whole[owner:])
	base, err := os.ReadFile(goPart)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(plain, base) {
		t.Error("the initramfs does not begin with the Go part")
	}
	padded := (len(base) + 511) / 512 * 512
	if len(plain)%512 != 0 || len(bytes.Trim(plain[len(base):padded], "\x00")) != 0 {
		t.Error("the archives are not padded with zeros to 512 bytes")
	}
	dir := t.TempDir()
	for _, archive := range [][]byte{whole[:owner], plain[:padded], plain[padded:]} {
		unarchive(t, dir, archive)
	}
	return dir
}

// unarchive unpacks an archive with cpio(1).
func unarchive(t *testing.T, dir string, archive []byte) {
	t.Helper()
	cmd := exec.Command(needTool(t, "cpio"), "--quiet", "-idm", "-H", "newc", "--no-absolute-filenames")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(archive)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("cpio: %v: %s", err, out)
	}
}

// unpacked returns what a file holds that is packed as the kernel unpacks it.
func unpacked(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return decompressed(t, data)
}

func decompressed(t *testing.T, data []byte) []byte {
	t.Helper()
	var r io.Reader
	var err error
	if bytes.HasPrefix(data, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		r, err = zstd.NewReader(bytes.NewReader(data))
	} else {
		r, err = gzip.NewReader(bytes.NewReader(data))
	}
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func TestInitramfs(t *testing.T) {
	dir := "lib/modules/" + testRelease + "/"
	files := fakeFiles(t)
	// Distributions compress modules in different ways; in the initramfs all
	// are plain.
	dep := ""
	for i, f := range files {
		switch {
		case strings.HasSuffix(f.name, "/ext4.ko"):
			files[i].name, files[i].data = f.name+".xz", compress(t, f.data, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) })
		case strings.HasSuffix(f.name, "/nbd.ko"):
			files[i].name, files[i].data = f.name+".zst", compress(t, f.data, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) })
		case strings.HasSuffix(f.name, "/fat.ko"):
			files[i].name, files[i].data = f.name+".gz", compress(t, f.data, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })
		case f.name == dir+"modules.dep":
			dep = strings.NewReplacer("ext4.ko:", "ext4.ko.xz:", "nbd.ko:", "nbd.ko.zst:", "fat/fat.ko", "fat/fat.ko.gz").Replace(f.data)
			files[i].data = dep
		}
	}
	for name, config := range map[string]string{"zstd": fakeConfig(t), "gzip": strings.ReplaceAll(fakeConfig(t), "CONFIG_RD_ZSTD", "CONFIG_RD_GZIP")} {
		t.Run(name, func(t *testing.T) {
			lib := fakeLib(t)
			image := filepath.Join(t.TempDir(), "x")
			source := writeTree(t, change(files, file{name: "boot/config-" + testRelease, data: config}))
			if _, err := Build(context.Background(), Config{Source: source, Output: image, Lib: lib, Key: fakeKey(), Level: 1}); err != nil {
				t.Fatal(err)
			}
			root := splitInitramfs(t, filepath.Join(image, manifest.Initramfs), filepath.Join(lib, GoInitramfs))
			drivers := t.TempDir()
			unarchive(t, drivers, unpacked(t, filepath.Join(image, manifest.Drivers)))
			read := func(name string) string {
				data, err := os.ReadFile(filepath.Join(root, name))
				if err != nil {
					t.Error(err)
				}
				return string(data)
			}
			if read("init") != "the Go part" {
				t.Error("the Go part is not there")
			}
			if read(manifest.OwnerKey) != string(fakeKey().Public().Text()) {
				t.Error("the owner's key is not there")
			}
			for _, m := range fakeModules {
				if strings.Contains(m.file, "sound") {
					continue
				}
				here, there := root, drivers
				if m.late {
					here, there = drivers, root
				}
				if got, err := os.ReadFile(filepath.Join(here, dir+m.file)); string(got) != "module "+m.file {
					t.Errorf("%s: %q, %v", m.file, got, err)
				}
				if _, err := os.Stat(filepath.Join(there, dir+m.file)); err == nil {
					t.Errorf("%s is in both files, or in the wrong one", m.file)
				}
			}
			if list := runTool(t, "find", drivers, "-type", "f", "!", "-name", "*.ko"); list != "" {
				t.Errorf("beside modules the drivers hold %s", list)
			}
			if _, err := os.Stat(filepath.Join(root, dir+"kernel/sound/sound-core.ko")); err == nil {
				t.Error("sound is in the initramfs")
			}
			tables := read(dir+"modules.dep") + read(dir+"modules.alias") + read(dir+"modules.softdep") + read(dir+"modules.order")
			for _, none := range []string{".xz", ".zst", ".gz", "sound"} {
				if strings.Contains(tables, none) {
					t.Errorf("%s in the tables:\n%s", none, tables)
				}
			}
			if !strings.Contains(tables, "kernel/fs/fat/vfat.ko: kernel/fs/fat/fat.ko\n") || !strings.Contains(tables, "alias crc32c crc32c_odd\n") || !strings.Contains(tables, "softdep ext4 pre: crc32c\n") {
				t.Errorf("tables:\n%s", tables)
			}
			if got := read(dir + "modules.builtin.modinfo"); got != "ext2.description=x\x00ext2.license=GPL\x00" {
				t.Errorf("modules.builtin.modinfo %q", got)
			}
		})
	}
}

func compress(t *testing.T, data string, open func(io.Writer) (io.WriteCloser, error)) string {
	t.Helper()
	var b bytes.Buffer
	w, err := open(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestNoModules(t *testing.T) {
	needTool(t, "mksquashfs")
	image := filepath.Join(t.TempDir(), "x")
	if _, err := Build(context.Background(), Config{Source: writeTree(t, fakeFiles(t)), Output: image, Lib: fakeLib(t), Key: fakeKey(), Level: 1, NoModules: true}); err != nil {
		t.Fatal(err)
	}
	if list := runTool(t, "unsquashfs", "-l", filepath.Join(image, manifest.Root)); strings.Contains(list, "modules") {
		t.Error("modules in the root file system")
	}
}

func TestOutputIsReplacedOrRefused(t *testing.T) {
	needTool(t, "mksquashfs")
	parent := t.TempDir()
	c := Config{Source: writeTree(t, fakeFiles(t)), Output: filepath.Join(parent, "x"), Lib: fakeLib(t), Key: fakeKey(), Level: 1}
	for range 2 {
		if _, err := Build(context.Background(), c); err != nil {
			t.Fatal(err)
		}
	}
	// What a killed build has left behind is cleared away by the next one.
	if err := os.Mkdir(filepath.Join(parent, ".x.123.part"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	if got := names(t, parent); !slices.Equal(got, []string{"x"}) {
		t.Errorf("beside the image: %v", got)
	}
	c.Output = t.TempDir()
	if err := os.WriteFile(filepath.Join(c.Output, "thesis.txt"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(context.Background(), c); err == nil || !strings.Contains(err.Error(), "is not an image") {
		t.Errorf("a directory with other things: %v", err)
	}
	if _, err := os.Stat(filepath.Join(c.Output, "thesis.txt")); err != nil {
		t.Error(err)
	}
}

func TestAFailedBuildKeepsTheOldImage(t *testing.T) {
	image := buildFake(t, fakeFiles(t))
	c := Config{Source: writeTree(t, change(fakeFiles(t), file{name: "sbin/init", data: "-"})), Output: image, Lib: fakeLib(t), Key: fakeKey(), Level: 1}
	if _, err := Build(context.Background(), c); err == nil || !strings.Contains(err.Error(), "no init") {
		t.Fatalf("got %v", err)
	}
	v, err := Verify(context.Background(), image, fakeKey().Public(), nil)
	if err != nil || v.Err() != nil {
		t.Errorf("the old image: %v, %v", err, v.Err())
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(image string) error
		want   string
	}{
		{"flipped bit", func(image string) error { return flip(filepath.Join(image, manifest.Kernel), 4000) }, "vmlinuz at byte 0: piece"},
		{"flipped bit in the second piece", func(image string) error { return flip(filepath.Join(image, manifest.Root), 16<<10+5) }, "root.squashfs at byte 16384: piece 1 "},
		{"truncated", func(image string) error { return os.Truncate(filepath.Join(image, manifest.Root), 5000) }, "root.squashfs at byte 5000: the file ends here"},
		{"longer", func(image string) error { return os.Truncate(filepath.Join(image, manifest.Kernel), 10000) }, "vmlinuz at byte 8192: the file should end here"},
		{"missing", func(image string) error { return os.Remove(filepath.Join(image, "boot/shimx64.efi")) }, "boot/shimx64.efi at byte 0: the file is missing"},
		{"another digest", func(image string) error {
			return errors.Join(edit(filepath.Join(image, manifest.File), `"sha256": "`, 11), resign(image, fakeKey()))
		}, "root.squashfs at byte 0: its SHA-256"},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := buildFake(t, change(fakeFiles(t), file{name: "usr/share/noise", data: noise(100 << 10)}))
			if err := c.damage(image); err != nil {
				t.Fatal(err)
			}
			v, err := Verify(context.Background(), image, fakeKey().Public(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Err(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, err := BuildMedium(context.Background(), MediumConfig{Image: image, Owner: fakeKey().Public(), Output: filepath.Join(t.TempDir(), "x.iso")}); err == nil {
				t.Error("a medium was made of it")
			}
		})
	}
	t.Run("another metainfo", func(t *testing.T) {
		image := buildFake(t, fakeFiles(t))
		other := buildFake(t, change(fakeFiles(t), file{name: "etc/hostname", data: "other"}))
		data, err := os.ReadFile(filepath.Join(other, manifest.Metainfo))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(image, manifest.Metainfo), data, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(context.Background(), image, fakeKey().Public(), nil); err == nil || !strings.Contains(err.Error(), "does not belong to its manifest") {
			t.Errorf("got %v", err)
		}
	})
}

func flip(name string, at int64) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 0x10
	_, err = f.WriteAt(b[:], at)
	return err
}

// edit changes the character that stands skip bytes after the first match.
func edit(name, match string, skip int) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	at := bytes.Index(data, []byte(match)) + skip
	if data[at] == '0' {
		data[at] = '1'
	} else {
		data[at] = '0'
	}
	return os.WriteFile(name, data, 0o644)
}
