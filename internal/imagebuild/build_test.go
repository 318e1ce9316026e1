package imagebuild

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
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

	"viver.lan/internal/bootfiles"
	"viver.lan/internal/imagedir"
	"viver.lan/internal/imagetree"
	"viver.lan/internal/manifest"
	"viver.lan/internal/nics"
	"viver.lan/internal/testlinux"
)

func TestBuild(t *testing.T) {
	image := buildFake(t, testlinux.Files(t))
	v, err := imagedir.Verify(context.Background(), image, testlinux.Key().Public(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Err(); err != nil {
		t.Fatal(err)
	}
	m := v.Manifest
	if m.Name != "fake" || m.Distribution != "Fake Linux 1" || m.KernelRelease != testlinux.Release || m.Arch != "amd64" || !m.Created.Equal(time.Unix(1e9, 0)) {
		t.Errorf("manifest: %+v", m)
	}
	var files []string
	for _, f := range m.Files {
		files = append(files, f.Name)
	}
	if want := []string{"root.squashfs", "vmlinuz", "initramfs.img", "nics.img", "drivers.img", "boot/undionly.kpxe", "boot/shimx64.efi", "boot/grubx64.efi", "boot/mmx64.efi"}; !slices.Equal(files, want) {
		t.Errorf("payload %v, want %v", files, want)
	}

	list := testlinux.Run(t, "unsquashfs", "-l", filepath.Join(image, manifest.Root))
	for name, want := range map[string]bool{
		"/etc/ssh/sshd_config": true, "/etc/ssh/ssh_host_ed25519_key": false, "/swapfile": false, "/proc": true,
		"/proc/cpuinfo": false, "/tmp/junk": false, "/boot/initrd.img-" + testlinux.Release: false,
		"/lib/modules/" + testlinux.Release + "/kernel/sound/sound-core.ko": true,
	} {
		if got := strings.Contains(list, "squashfs-root"+name+"\n"); got != want {
			t.Errorf("%s in the root file system: %v, want %v", name, got, want)
		}
	}
	cat := func(name string) string {
		return testlinux.Run(t, "unsquashfs", "-cat", filepath.Join(image, manifest.Root), name)
	}
	if got := cat("etc/machine-id"); got != "" {
		t.Errorf("machine-id %q", got)
	}
	if got := cat("etc/fstab"); !strings.HasPrefix(got, "# not on a diskless node: UUID=1") {
		t.Errorf("fstab %q", got)
	}
}

// An archive, compressed or not, is the same source, and it is said what it is before
// anything else.
func TestCompressedSource(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "t.tar")
	testlinux.Run(t, "tar", "-C", testlinux.Write(t, testlinux.Files(t)), "--sort=name", "-cf", archive, ".")
	for _, compress := range []string{"gzip", "xz", "zstd"} {
		testlinux.Run(t, compress, "-k", archive)
	}
	var hashes []string
	for ending, kind := range map[string]string{"": "a tar archive", ".gz": "a tar archive, compressed with gzip", ".xz": "a tar archive, compressed with xz", ".zst": "a tar archive, compressed with zstd"} {
		out := filepath.Join(t.TempDir(), "fake")
		var notes []string
		c := Config{Source: archive + ending, Output: out, Lib: testlinux.Lib(t), Key: testlinux.Key(), Level: 1, Created: time.Unix(1e9, 0),
			Note: func(s string) { notes = append(notes, s) }}
		m, err := Build(context.Background(), c)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, m.Infohash.String())
		if want := archive + ending + " is " + kind; notes[0] != want {
			t.Errorf("said %q, want %q", notes[0], want)
		}
		if names := testlinux.Names(t, filepath.Dir(out)); len(names) != 1 {
			t.Errorf("%s: left %q", ending, names)
		}
	}
	if len(slices.Compact(hashes)) != 1 {
		t.Errorf("infohashes %q", hashes)
	}
}

// An iPXE for UEFI is in the payload under names that its shim finds, and does not
// take the place of the programs that a medium needs.
func TestImageWithIPXE(t *testing.T) {
	dir := t.TempDir()
	c := Config{Source: testlinux.Write(t, testlinux.Files(t)), Output: filepath.Join(dir, "x"), Lib: testlinux.Lib(t), Key: testlinux.Key(), Level: 1,
		IPXE: filepath.Join(dir, "snponly.efi")}
	program := testlinux.UEFIProgram(t, strings.Repeat("\x00", 0x200)+"iPXE", nil)
	if err := os.WriteFile(c.IPXE, []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	var notes []string
	c.Note = func(s string) { notes = append(notes, s) }
	m, err := Build(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(c.Output, manifest.BootDir, bootfiles.IPXE))
	if err != nil || string(got) != program {
		t.Errorf("the program in the image: %d bytes, %v", len(got), err)
	}
	for name, want := range map[string]bool{bootfiles.IPXE: true, bootfiles.Shim: true, bootfiles.GRUB: true, bootfiles.IPXEShim: false} {
		if _, _, ok := m.Lookup(manifest.BootDir + "/" + name); ok != want {
			t.Errorf("%s in the payload: %v, want %v", name, ok, want)
		}
	}
	if !slices.ContainsFunc(notes, func(s string) bool { return strings.HasPrefix(s, "warning: "+c.IPXE+" is not signed by Microsoft") }) {
		t.Errorf("notes: %q", notes)
	}
	for _, c := range []Config{{IPXE: c.Source}, {IPXE: c.IPXE, IPXEShim: c.IPXE}, {IPXEShim: c.IPXE}} {
		c.Source, c.Output, c.Lib, c.Key = "/", filepath.Join(dir, "y"), testlinux.Lib(t), testlinux.Key()
		if _, err := Build(context.Background(), c); err == nil {
			t.Errorf("built with the iPXE %q behind the shim %q", c.IPXE, c.IPXEShim)
		}
		if _, err := os.Stat(c.Output); err == nil {
			t.Error("an image was left")
		}
	}
}

func TestSourceIsNotChanged(t *testing.T) {
	testlinux.Tool(t, "mksquashfs")
	root := testlinux.Write(t, testlinux.Files(t))
	snapshot := func() string {
		return testlinux.Run(t, "sh", "-c", "cd "+root+" && find . -type f | sort | xargs sha256sum; find . -printf '%p %m %s %t\\n' | sort")
	}
	before := snapshot()
	if _, err := Build(context.Background(), Config{Source: root, Output: filepath.Join(t.TempDir(), "x"), Lib: testlinux.Lib(t), Key: testlinux.Key(), Level: 1}); err != nil {
		t.Fatal(err)
	}
	if after := snapshot(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestBuildIsReproducible(t *testing.T) {
	var hashes []string
	for range 2 {
		v, err := imagedir.Verify(context.Background(), buildFake(t, testlinux.Files(t)), testlinux.Key().Public(), nil)
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

// TestAttributes builds from a tar archive, as an ordinary user can, and lets
// unsquashfs say which owners, modes and attributes arrived.
func TestAttributes(t *testing.T) {
	testlinux.Tool(t, "mksquashfs")
	root := testlinux.Write(t, testlinux.Files(t))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(root)); err != nil {
		t.Fatal(err)
	}
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
	if _, err := Build(context.Background(), Config{Source: archive, Output: image, Lib: testlinux.Lib(t), Key: testlinux.Key(), Level: 1}); err != nil {
		t.Fatal(err)
	}
	squashfs := filepath.Join(image, manifest.Root)
	list := testlinux.Run(t, "unsquashfs", "-lln", squashfs)
	for _, want := range []string{"-rwsr-xr-x 0/42", "drwxrws--- 1234/5678", "crw-rw-rw- 0/0"} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
	if n := strings.Count(list, "-rwsr-xr-x 0/42"); n != 2 {
		t.Errorf("the hard link has not its file's attributes:\n%s", list)
	}
	out := filepath.Join(t.TempDir(), "out")
	testlinux.Run(t, "unsquashfs", "-quiet", "-no-progress", "-d", out, squashfs, "usr/bin/ping")
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
	if len(whole)%4 != 0 {
		t.Errorf("%d bytes: a plain archive behind them would not begin at a multiple of four", len(whole))
	}
	packed := whole[owner:]
	if packed[0] == 0 {
		t.Error("zeros lie behind the owner's key, at which the kernel stops")
	}
	plain := decompressed(t, packed[:len(packed)-padding(packed)])
	base := unpacked(t, goPart)
	if !bytes.HasPrefix(plain, base) {
		t.Error("the initramfs does not begin with the Go part")
	}
	if once, err := os.ReadFile(goPart); err != nil || bytes.HasPrefix(packed, once) != (packed[0] == once[0]) {
		t.Errorf("a kernel that takes the Go part as it is packed does not get that: %v", err)
	}
	if len(plain)%512 != 0 {
		t.Error("the archive of modules is not padded with zeros to 512 bytes")
	}
	dir := t.TempDir()
	for _, archive := range [][]byte{whole[:owner], plain[:len(base)], plain[len(base):]} {
		unarchive(t, dir, archive)
	}
	return dir
}

// padding is how many zeros are behind a compressed stream, three at most. One of them
// may be its own.
func padding(packed []byte) (zeros int) {
	for zeros < 3 && packed[len(packed)-1-zeros] == 0 {
		if _, err := decompress(packed[:len(packed)-zeros]); err == nil {
			break
		}
		zeros++
	}
	return zeros
}

// unarchive unpacks an archive with cpio(1).
func unarchive(t *testing.T, dir string, archive []byte) {
	t.Helper()
	cmd := exec.Command(testlinux.Tool(t, "cpio"), "--quiet", "-idm", "-H", "newc", "--no-absolute-filenames")
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
	plain, err := decompress(data)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func decompress(data []byte) ([]byte, error) {
	var r io.Reader
	var err error
	if bytes.HasPrefix(data, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		r, err = zstd.NewReader(bytes.NewReader(data))
	} else {
		r, err = gzip.NewReader(bytes.NewReader(data))
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestInitramfs(t *testing.T) {
	dir := "lib/modules/" + testlinux.Release + "/"
	files := testlinux.Files(t)
	// Distributions compress modules in different ways; in the initramfs all
	// are plain.
	dep := ""
	for i, f := range files {
		switch {
		case strings.HasSuffix(f.Name, "/ext4.ko"):
			files[i].Name, files[i].Data = f.Name+".xz", compress(t, f.Data, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) })
		case strings.HasSuffix(f.Name, "/nbd.ko"):
			files[i].Name, files[i].Data = f.Name+".zst", compress(t, f.Data, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) })
		case strings.HasSuffix(f.Name, "/fat.ko"):
			files[i].Name, files[i].Data = f.Name+".gz", compress(t, f.Data, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })
		case f.Name == dir+"modules.dep":
			dep = strings.NewReplacer("ext4.ko:", "ext4.ko.xz:", "nbd.ko:", "nbd.ko.zst:", "fat/fat.ko", "fat/fat.ko.gz").Replace(f.Data)
			files[i].Data = dep
		}
	}
	for name, config := range map[string]string{"zstd": testlinux.Config(t), "gzip": strings.ReplaceAll(testlinux.Config(t), "CONFIG_RD_ZSTD", "CONFIG_RD_GZIP")} {
		t.Run(name, func(t *testing.T) {
			lib := testlinux.Lib(t)
			image := filepath.Join(t.TempDir(), "x")
			source := testlinux.Write(t, testlinux.Change(files, testlinux.File{Name: "boot/config-" + testlinux.Release, Data: config}))
			if _, err := Build(context.Background(), Config{Source: source, Output: image, Lib: lib, Key: testlinux.Key(), Level: 1}); err != nil {
				t.Fatal(err)
			}
			root := splitInitramfs(t, filepath.Join(image, manifest.Initramfs), filepath.Join(lib, GoInitramfs))
			drivers, cards := t.TempDir(), t.TempDir()
			unarchive(t, drivers, unpacked(t, filepath.Join(image, manifest.Drivers)))
			table, archives := splitNICs(t, filepath.Join(image, manifest.NICs))
			for _, archive := range archives {
				unarchive(t, cards, archive)
			}
			checkFamilies(t, table)
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
			if read(manifest.OwnerKey) != string(testlinux.Key().Public().Text()) {
				t.Error("the owner's key is not there")
			}
			for _, m := range testlinux.Modules {
				for file, where := range map[string]string{manifest.Initramfs: root, manifest.NICs: cards, manifest.Drivers: drivers} {
					got, err := os.ReadFile(filepath.Join(where, dir+m.File))
					if (err == nil) != (m.In == file) || err == nil && string(got) != "module "+m.File {
						t.Errorf("%s in %s: %q, %v; it belongs into %q", m.File, file, got, err, m.In)
					}
				}
			}
			if list := testlinux.Run(t, "find", drivers, cards, "-type", "f", "!", "-name", "*.ko"); list != "" {
				t.Errorf("beside modules the drivers hold %s", list)
			}
			tables := read(dir+"modules.dep") + read(dir+"modules.alias") + read(dir+"modules.softdep") + read(dir+"modules.order")
			for _, none := range []string{".xz", ".zst", ".gz", "sound"} {
				if strings.Contains(tables, none) {
					t.Errorf("%s in the tables:\n%s", none, tables)
				}
			}
			if !strings.Contains(tables, "kernel/fs/fat/vfat.ko: kernel/fs/fat/fat.ko\n") || !strings.Contains(tables, " r8169\n") || !strings.Contains(tables, "alias crc32c crc32c_odd\n") || !strings.Contains(tables, "softdep ext4 pre: crc32c\n") {
				t.Errorf("tables:\n%s", tables)
			}
			if got := read(dir + "modules.builtin.modinfo"); got != "ext2.description=x\x00ext2.license=GPL\x00" {
				t.Errorf("modules.builtin.modinfo %q", got)
			}
		})
	}
}

// splitNICs returns the table of a file of network drivers, and its archives unpacked.
func splitNICs(t *testing.T, name string) (table *nics.Table, archives [][]byte) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if table, err = nics.Read(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	at, err := table.Head(int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if at%4 != 0 || data[at] == 0 {
		t.Errorf("the first packed archive begins at %d, with %#x: the kernel takes it at a multiple of four, and no zero", at, data[at])
	}
	for _, a := range table.Archives {
		archives = append(archives, decompressed(t, data[at:at+a.Size]))
		at += a.Size
	}
	return table, archives
}

// checkFamilies holds which of the modules a card needs: what it shares with USB
// adapters is apart from these, and a card with transceivers gets all of them.
func checkFamilies(t *testing.T, table *nics.Table) {
	t.Helper()
	for text, want := range map[string]string{"8086:100e": "e1000", "10ec:8168": "libphy mii r8169 realtek", "15ad:07b0": "", "1af4:1000": ""} {
		card, err := nics.ParseCard(text)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range table.Archives {
			if slices.Contains(a.Cards, card) {
				got = append(got, a.Modules...)
			}
		}
		if slices.Sort(got); strings.Join(got, " ") != want || slices.Contains(table.Covered, card) != (want == "") {
			t.Errorf("%s gets %q, want %q; %+v", text, got, want, table)
		}
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

func TestBuildNeedsKey(t *testing.T) {
	if _, err := Build(context.Background(), Config{Source: "/", Output: filepath.Join(t.TempDir(), "x"), Lib: testlinux.Lib(t)}); err == nil || !strings.Contains(err.Error(), "owner's key") {
		t.Errorf("without a key: %v", err)
	}
}

func TestNoModules(t *testing.T) {
	testlinux.Tool(t, "mksquashfs")
	image := filepath.Join(t.TempDir(), "x")
	if _, err := Build(context.Background(), Config{Source: testlinux.Write(t, testlinux.Files(t)), Output: image, Lib: testlinux.Lib(t), Key: testlinux.Key(), Level: 1, NoModules: true}); err != nil {
		t.Fatal(err)
	}
	if list := testlinux.Run(t, "unsquashfs", "-l", filepath.Join(image, manifest.Root)); strings.Contains(list, "modules") {
		t.Error("modules in the root file system")
	}
}

func TestOutputIsReplacedOrRefused(t *testing.T) {
	testlinux.Tool(t, "mksquashfs")
	parent := t.TempDir()
	c := Config{Source: testlinux.Write(t, testlinux.Files(t)), Output: filepath.Join(parent, "x"), Lib: testlinux.Lib(t), Key: testlinux.Key(), Level: 1}
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
	if got := testlinux.Names(t, parent); !slices.Equal(got, []string{"x"}) {
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

func TestFailedBuildKeepsOldImage(t *testing.T) {
	image := buildFake(t, testlinux.Files(t))
	c := Config{Source: testlinux.Write(t, testlinux.Change(testlinux.Files(t), testlinux.File{Name: "sbin/init", Data: "-"})), Output: image, Lib: testlinux.Lib(t), Key: testlinux.Key(), Level: 1}
	if _, err := Build(context.Background(), c); err == nil || !strings.Contains(err.Error(), "no init") {
		t.Fatalf("got %v", err)
	}
	v, err := imagedir.Verify(context.Background(), image, testlinux.Key().Public(), nil)
	if err != nil || v.Err() != nil {
		t.Errorf("the old image: %v, %v", err, v.Err())
	}
}

// TestEarlierImagesAreExcluded builds again and again from a tree that the
// images lie in.
func TestEarlierImagesAreExcluded(t *testing.T) {
	testlinux.Tool(t, "mksquashfs")
	root := testlinux.Write(t, testlinux.Change(testlinux.Files(t), testlinux.File{Name: "usr/share/testlinux.Noise", Data: testlinux.Noise(1 << 20)}))
	var sizes []int64
	for _, name := range []string{"one", "two", "two"} {
		var notes []string
		c := Config{Source: root, Output: filepath.Join(root, "srv", name), Lib: testlinux.Lib(t), Key: testlinux.Key(), Level: 1, Note: func(s string) { notes = append(notes, s) }}
		m, err := Build(context.Background(), c)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, m.RootFile().Size)
		if said := strings.Join(notes, "\n"); len(sizes) > 1 && !strings.Contains(said, "/srv/one") {
			t.Errorf("not said: %s", said)
		}
		if report, err := ReadReport(c.Output); err != nil || len(report.About("/swapfile").Differences) != 1 {
			t.Errorf("report %+v, %v", report, err)
		}
	}
	if sizes[2] > sizes[0]+4096 {
		t.Errorf("the image grows: %v", sizes)
	}
}

// TestCancelledBuildDoesNotWaitForRead stands for a file on a disk that is gone.
func TestCancelledBuildDoesNotWaitForRead(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	stuck := make(chan struct{})
	defer close(stuck)
	err := runWithGrace(ctx, time.Millisecond, func() error {
		cancel()
		<-stuck
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestOtherKernelsAreLeftOut(t *testing.T) {
	files := testlinux.Change(testlinux.Files(t), testlinux.File{Name: "boot/vmlinuz-6.1.0-8-test", Data: string(testlinux.Kernel("6.1.0-8-test"))},
		testlinux.File{Name: "lib/modules/6.1.0-8-test/modules.dep", Data: ""})
	tree, err := imagetree.Scan(context.Background(), testlinux.Write(t, files), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	own := bootfiles.Kernel{Release: "6.2-own", Path: "boot/vmlinuz-6.2-own", Image: testlinux.Kernel("6.2-own")}
	for _, c := range []struct {
		kernel bootfiles.Kernel
		notes  []string
		left   []string
	}{
		{bootfiles.Kernel{Release: testlinux.Release}, []string{"left out kernel 6.1.0-8-test"}, []string{"boot/vmlinuz-" + testlinux.Release}},
		{own, []string{"left out kernel " + testlinux.Release}, []string{own.Path}},
	} {
		notes := takeKernel(tree, c.kernel)
		left, err := fs.Glob(tree, "boot/vmlinuz-*")
		if err != nil || !slices.Equal(left, c.left) || !slices.Equal(notes, c.notes) {
			t.Errorf("%s: left are %q, %v; said was %q", c.kernel.Release, left, err, notes)
		}
	}
	if _, err := fs.Stat(tree, "lib/modules/6.1.0-8-test"); err == nil {
		t.Error("the other kernel's modules are left")
	}
}

// What systemd compares is the times that a node sees: those in the squashfs.
func TestStampIsAsOldAsUsr(t *testing.T) {
	files := append(testlinux.Files(t), testlinux.File{Name: "usr/lib/systemd/system/systemd-sysusers.service", Data: "ConditionNeedsUpdate=/etc\n"})
	out := filepath.Join(t.TempDir(), "out")
	testlinux.Run(t, "unsquashfs", "-quiet", "-no-progress", "-d", out, filepath.Join(buildFake(t, files), manifest.Root), "etc/.updated", "usr/share/text")
	stamp, err := os.Stat(filepath.Join(out, "etc/.updated"))
	if err != nil {
		t.Fatal(err)
	}
	usr, err := os.Stat(filepath.Join(out, "usr"))
	if err != nil || !stamp.ModTime().Equal(usr.ModTime()) {
		t.Errorf("the stamp is of %v, /usr of %v, %v", stamp.ModTime(), usr.ModTime(), err)
	}
}

// buildFake makes an image from files and returns its directory.
func buildFake(t testing.TB, files []testlinux.File) string {
	t.Helper()
	testlinux.Tool(t, "mksquashfs")
	out := filepath.Join(t.TempDir(), "fake")
	c := Config{Source: testlinux.Write(t, files), Output: out, Lib: testlinux.Lib(t), Key: testlinux.Key(), Level: 1, PieceLength: 16 << 10, Created: time.Unix(1e9, 0)}
	if _, err := Build(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	return out
}
