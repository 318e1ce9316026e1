package hardware

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const testRelease = "6.1.0-test"

// writeModule writes the least ELF file that depmod takes for a module: a
// relocatable object whose only section of interest is .modinfo.
func writeModule(t *testing.T, dir, file string, modinfo ...string) {
	t.Helper()
	info := []byte(strings.Join(modinfo, "\x00") + "\x00")
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	const header, section = 64, 64
	var b bytes.Buffer
	le := func(v any) {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	b.WriteString("\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 9))
	le([]uint16{1, 62}) // ET_REL, x86-64
	le(uint32(1))
	le([]uint64{0, 0, uint64(header + len(info) + len(names))})
	le(uint32(0))
	le([]uint16{header, 0, 0, section, 3, 2})
	b.Write(info)
	b.Write(names)
	sections := [][2]uint64{{0, 0}, {header, uint64(len(info))}, {uint64(header + len(info)), uint64(len(names))}}
	for i, s := range sections {
		le([]uint32{[]uint32{0, 1, 10}[i], []uint32{0, 1, 3}[i]})
		le([]uint64{0, 0, s[0], s[1]})
		le([]uint32{0, 0})
		le([]uint64{1, 0})
	}
	path := filepath.Join(dir, "lib/modules", testRelease, "kernel", file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		t.Fatalf("%s is needed as a judge (Debian package kmod): %v", name, err)
	}
	return path
}

// kmodTree has depmod index modules with the patterns that are hard to match.
func kmodTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	writeModule(t, dir, "net/e1000.ko", "alias=pci:v00008086d0000100Esv*sd*bc*sc*i*", "alias=pci:v00008086d00001[0-2]*sv*sd*bc*sc*i*")
	writeModule(t, dir, "net/phy-amd.ko", "alias=mdio:0000000000100010010101100001????")
	writeModule(t, dir, "usb/usb-storage.ko", "alias=usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*", "alias=usb:v05ACp12[A-F0-3]*")
	writeModule(t, dir, "fs/isofs.ko", "alias=iso9660", "alias=fs-iso9660")
	writeModule(t, dir, "hw/acme.ko", "alias=dmi*:svn*Acme*:pn*BoxTwo*:", "alias=platform:acme-[!a-c]x")
	writeModule(t, dir, "hw/everything.ko", "alias=of:N*T*C*", "alias=of:NserialT?C*")
	writeModule(t, dir, "crypto/crc32c_generic.ko", "alias=crypto-crc32c", "alias=crc32c")
	writeModule(t, dir, "crypto/crc32c-intel.ko", "alias=crypto-crc32c", "alias=crc32c")
	writeModule(t, dir, "fs/ext4.ko", "softdep=pre: crypto-crc32c", "alias=fs-ext4")
	writeModule(t, dir, "hw/vfio.ko", "softdep=post: acme no-such-module", "softdep=pre: usb-storage")
	if err := os.WriteFile(filepath.Join(dir, "lib/modules", testRelease, "modules.order"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool(t, "depmod"), "-b", dir, testRelease).CombinedOutput(); err != nil {
		t.Fatalf("depmod: %v\n%s", err, out)
	}
	return dir
}

// TestLookupJudgedByModprobe asks modprobe the same questions.
func TestLookupJudgedByModprobe(t *testing.T) {
	dir := kmodTree(t)
	tree, err := OpenTree(dir, testRelease)
	if err != nil {
		t.Fatal(err)
	}
	answered := 0
	for _, name := range []string{
		"pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00",
		"pci:v00008086d000010D3sv00001AF4sd00001100bc02sc00i00",
		"pci:v00008086d00001301sv00001AF4sd00001100bc02sc00i00",
		"mdio:00000000001000100101011000011010", "mdio:0000000000100010010101100001101",
		"usb:v0781p5567d0100dc00dsc00dp00ic08isc06ip50in00", "usb:v05ACp12B0d0", "usb:v05ACp12G0d0", "usb:v05ACp1240",
		"iso9660", "fs-iso9660", "fs_iso9660", "isofs", "usb_storage", "usb-storage", "crypto-crc32c", "crc32c-intel",
		"dmi:bvn:svnAcmeInc:pnABoxTwoB:rvn", "platform:acme-dx", "platform:acme-bx",
		"of:Nserial/T9C1", "of:NserialTC", "of:NT(null)C", "of:N", "nothing", "",
	} {
		out, _ := exec.Command(tool(t, "modprobe"), "-d", dir, "-S", testRelease, "-C", "/dev/null", "-R", name).Output()
		var want []string
		for _, w := range strings.Fields(string(out)) {
			want = append(want, underscores(w))
		}
		got, _ := tree.lookup(name)
		got = slices.Clone(got)
		slices.Sort(got)
		slices.Sort(want)
		if want = slices.Compact(want); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, modprobe says %q", name, got, want)
		}
		answered += len(want)
	}
	if answered < 15 {
		t.Errorf("modprobe knew only %d answers: is the tree indexed?", answered)
	}
	for _, name := range []string{"ext4", "vfio"} {
		var names []string
		for _, n := range tree.order(name) {
			names = append(names, n.name)
		}
		out, err := exec.Command(tool(t, "modprobe"), "-d", dir, "-S", testRelease, "-C", "/dev/null", "-D", name).Output()
		if err != nil {
			t.Errorf("modprobe -D %s: %v", name, err)
		}
		var want []string
		for line := range strings.Lines(string(out)) {
			if words := strings.Fields(line); len(words) > 1 && words[0] == "insmod" {
				want = append(want, moduleName(words[1]))
			}
		}
		// modprobe leaves out what this machine has running; order is what
		// counts, and who is listed at all.
		if !isSubsequence(want, names) || !slices.Contains(names, name) {
			t.Errorf("order of %s is %q, modprobe says %q", name, names, want)
		}
	}
}

func isSubsequence(short, long []string) bool {
	for _, s := range short {
		i := slices.Index(long, s)
		if i < 0 {
			return false
		}
		long = long[i+1:]
	}
	return true
}

func TestOrder(t *testing.T) {
	tree := &Tree{
		modules: parseDeps("k/vfat.ko: k/fat.ko k/base.ko\nk/fat.ko: k/base.ko\nk/base.ko:\nk/nls-cp437.ko.xz:\nk/loop-a.ko: k/loop-b.ko\nk/loop-b.ko: k/loop-a.ko\n"),
		soft:    parseSoftdeps("softdep vfat pre: nls_cp437 gone\nsoftdep base post: vfat\nsoftdep cifs gcm\n"),
	}
	for name, want := range map[string][]need{
		"vfat":   {{"base", true}, {"fat", true}, {"nls_cp437", false}, {"vfat", true}},
		"loop_a": {{"loop_b", true}, {"loop_a", true}},
	} {
		if got := tree.order(name); !slices.Equal(got, want) {
			t.Errorf("order(%s) = %v, want %v", name, got, want)
		}
	}
}

func TestOpenTreeSaysWhatIsMissing(t *testing.T) {
	_, err := OpenTree(t.TempDir(), "1.2.3")
	if err == nil || !strings.Contains(err.Error(), "modules of kernel 1.2.3") || !strings.Contains(err.Error(), "modules.dep") {
		t.Errorf("OpenTree of nothing: %v", err)
	}
}
