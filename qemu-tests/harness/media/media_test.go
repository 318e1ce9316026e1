package media

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/hosttool"
	"viver.lan/internal/media"
)

// need skips a test, which CI (CI=true) does not allow.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := hosttool.Find(tool); err == nil {
			continue
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed", tool)
		}
		t.Skipf("%s is not installed", tool)
	}
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := output(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// carve returns the disk's only partition as a file of its own.
func carve(t *testing.T, disk string) string {
	t.Helper()
	data, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(t.TempDir(), "part")
	if err := os.WriteFile(part, data[partitionStart:], 0o600); err != nil {
		t.Fatal(err)
	}
	return part
}

// The judges are the file systems' own checkers and readers, and blkid, which
// is what a distribution would use.
func TestDisksAreWhatTheyClaim(t *testing.T) {
	files := map[string]string{"viver-data/": "", "notes/a file.txt": "hello\n"}
	tests := []struct {
		spec   DiskSpec
		tools  []string
		blkid  string // of the partition
		table  string // type in the partition table
		judges func(t *testing.T, part string)
	}{
		{
			spec: DiskSpec{FS: Ext4, Size: 16 << 20, Label: "data", Files: files}, tools: []string{"e2fsck", "debugfs"},
			blkid: "ext4", table: "0x83",
			judges: func(t *testing.T, part string) {
				tool(t, "e2fsck", "-fn", part)
				if got := tool(t, "debugfs", "-R", `cat "/notes/a file.txt"`, part); got != "hello\n" {
					t.Errorf("debugfs reads %q", got)
				}
				if got := tool(t, "debugfs", "-R", "stat /viver-data", part); !strings.Contains(got, "Type: directory") {
					t.Errorf("debugfs on the empty folder: %s", got)
				}
			},
		}, {
			spec: DiskSpec{FS: XFS, Size: 301 << 20, Files: map[string]string{"viver-data/": "", "notes/file": "hello\n"}}, tools: []string{"xfs_repair", "xfs_db"},
			blkid: "xfs", table: "0x83",
			judges: func(t *testing.T, part string) {
				tool(t, "xfs_repair", "-n", part)
				if got := tool(t, "xfs_db", "-c", "path /notes/file", "-c", "print core.size", part); strings.TrimSpace(got) != "core.size = 6" {
					t.Errorf("xfs_db says %q", got)
				}
			},
		}, {
			spec: DiskSpec{FS: VFAT, Size: 16 << 20, Label: "STICK", Files: files}, tools: []string{"fsck.vfat", "mtype"},
			blkid: "vfat", table: "0xc",
			judges: func(t *testing.T, part string) {
				tool(t, "fsck.vfat", "-n", part)
				if got := tool(t, "mtype", "-i", part, "::/notes/a file.txt"); got != "hello\n" {
					t.Errorf("mtype reads %q", got)
				}
			},
		}, {
			spec:  DiskSpec{FS: Swap, Size: 4 << 20, Hibernated: true},
			blkid: "swsuspend", table: "0x82",
		}, {
			spec: DiskSpec{FS: None, Size: 2 << 20}, table: "0x83",
		},
	}
	for _, test := range tests {
		t.Run(string(test.spec.FS), func(t *testing.T) {
			need(t, append(append(Tools(test.spec.FS), "blkid"), test.tools...)...)
			path := filepath.Join(t.TempDir(), "disk.img")
			if err := NewDisk(t.Context(), path, test.spec); err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Size() != test.spec.Size {
				t.Errorf("size %v (%v), want %d", info.Size(), err, test.spec.Size)
			}
			if got := tool(t, "blkid", "-p", "-s", "PTTYPE", "-o", "value", path); strings.TrimSpace(got) != "dos" {
				t.Errorf("blkid sees a partition table of type %q", got)
			}
			if _, err := hosttool.Find("sfdisk"); err == nil {
				if got := tool(t, "sfdisk", "--part-type", path, "1"); "0x"+strings.TrimSpace(got) != test.table {
					t.Errorf("sfdisk sees partition type %q, want %s", got, test.table)
				}
			}
			if test.blkid != "" {
				got := tool(t, "blkid", "-p", "-O", fmt.Sprint(partitionStart), "-s", "TYPE", "-o", "value", path)
				if strings.TrimSpace(got) != test.blkid {
					t.Errorf("blkid sees %q in the partition, want %s", got, test.blkid)
				}
			}
			if test.judges != nil {
				test.judges(t, carve(t, path))
			}
		})
	}
}

func TestWholeDiskHasNoTable(t *testing.T) {
	need(t, "mkfs.ext4", "blkid")
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := NewDisk(t.Context(), path, DiskSpec{FS: Ext4, Size: 8 << 20, WholeDisk: true}); err != nil {
		t.Fatal(err)
	}
	if got := tool(t, "blkid", "-p", "-s", "TYPE", "-o", "value", path); strings.TrimSpace(got) != "ext4" {
		t.Errorf("blkid sees %q, want ext4", got)
	}
}

func TestFailureLeavesNoDisk(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, spec := range map[string]DiskSpec{
		"too small": {FS: Ext4, Size: 512},
		"odd size":  {FS: Ext4, Size: 8<<20 + 1},
		"unknown":   {FS: "zfs", Size: 8 << 20},
	} {
		if err := NewDisk(t.Context(), filepath.Join(dir, "disk.img"), spec); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := NewDisk(ctx, filepath.Join(dir, "disk.img"), DiskSpec{FS: Ext4, Size: 8 << 20}); err == nil {
		t.Error("cancelled: no error")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// medium makes an ISO like ours: two files and an appended FAT volume.
func medium(t *testing.T, extra ...string) (iso string, root []byte) {
	t.Helper()
	need(t, "xorriso", "mkfs.vfat", "mcopy")
	dir := t.TempDir()
	conf := filepath.Join(dir, "conf.img")
	if err := NewDisk(t.Context(), conf, DiskSpec{FS: VFAT, Size: 8 << 20, WholeDisk: true, Label: media.SettingsLabel,
		Files: map[string]string{"viver/viver.toml": "# empty\n"}}); err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(dir, "tree")
	root = bytes.Repeat([]byte("squashfs"), 100_000)
	if err := lay(tree, map[string]string{"viver/medium.json": `{"format":1}`, "viver/image/root.squashfs": string(root)}); err != nil {
		t.Fatal(err)
	}
	iso = filepath.Join(dir, "medium.iso")
	args := append([]string{"-as", "mkisofs", "-quiet", "-r", "-V", "VIVER", "-append_partition", "3", "0x0c", conf}, extra...)
	if out, err := exec.Command("xorriso", append(args, "-o", iso, tree)...).CombinedOutput(); err != nil {
		t.Fatalf("xorriso: %v\n%s", err, out)
	}
	return iso, root
}

func TestFlippedBitIsInTheFile(t *testing.T) {
	iso, root := medium(t)
	damaged := filepath.Join(t.TempDir(), "damaged.iso")
	if err := Copy(damaged, iso); err != nil {
		t.Fatal(err)
	}
	const at = 123_456
	if err := FlipBit(t.Context(), damaged, "/viver/image/root.squashfs", at); err != nil {
		t.Fatal(err)
	}
	// xorriso reads the files back.
	out := filepath.Join(t.TempDir(), "out")
	tool(t, "xorriso", "-osirrox", "on", "-indev", damaged, "-extract", "/", out)
	got, err := os.ReadFile(filepath.Join(out, "viver/image/root.squashfs"))
	if err != nil {
		t.Fatal(err)
	}
	root[at] ^= 0x10
	if !bytes.Equal(got, root) {
		t.Error("the file differs from the original in other places than the one bit")
	}
	if marker, err := os.ReadFile(filepath.Join(out, "viver/medium.json")); err != nil || string(marker) != `{"format":1}` {
		t.Errorf("the other file is %q (%v)", marker, err)
	}
	read, err := ReadISO(t.Context(), damaged, "/viver/image/root.squashfs")
	if err != nil || sha256.Sum256(read) != sha256.Sum256(root) {
		t.Errorf("ReadISO differs from xorriso (%v)", err)
	}
	if err := FlipBit(t.Context(), damaged, "/viver/image/root.squashfs", int64(len(root))); err == nil {
		t.Error("a bit behind the file's end was flipped")
	}
	if err := FlipBit(t.Context(), damaged, "/no/such/file", 0); err == nil {
		t.Error("a bit of no file was flipped")
	}
}

func TestEditMedium(t *testing.T) {
	for name, extra := range map[string][]string{"mbr": nil, "gpt": {"-appended_part_as_gpt"}} {
		t.Run(name, func(t *testing.T) {
			iso, _ := medium(t, extra...)
			before, err := ReadVolume(t.Context(), iso, "viver/viver.toml")
			if err != nil || string(before) != "# empty\n" {
				t.Fatalf("before: %q, %v", before, err)
			}
			if err := Edit(t.Context(), iso, map[string]string{
				"viver/viver.toml":          "nonsense = [\n",
				"viver/runes/new/rune.toml": "name = \"new\"\n",
			}); err != nil {
				t.Fatal(err)
			}
			after, err := ReadVolume(t.Context(), iso, "viver/viver.toml")
			if err != nil || string(after) != "nonsense = [\n" {
				t.Errorf("after: %q, %v", after, err)
			}
			bundle := filepath.Join(t.TempDir(), "agent")
			if err := lay(bundle, map[string]string{"rune.toml": "name = \"agent\"\n", "files/usr/bin/agent": "\x7fELF"}); err != nil {
				t.Fatal(err)
			}
			if err := AddRune(t.Context(), iso, bundle); err != nil {
				t.Fatal(err)
			}
			if got, err := ReadVolume(t.Context(), iso, "viver/runes/agent/files/usr/bin/agent"); err != nil || string(got) != "\x7fELF" {
				t.Errorf("the agent's program: %q, %v", got, err)
			}
			added, err := ReadVolume(t.Context(), iso, "viver/runes/new/rune.toml")
			if err != nil || string(added) != "name = \"new\"\n" {
				t.Errorf("the new rune: %q, %v", added, err)
			}
		})
	}
	if err := Edit(t.Context(), "/dev/null", nil); err == nil {
		t.Error("a medium without partitions was edited")
	}
}
