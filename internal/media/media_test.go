package media

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/manifest"
)

func TestMarkerRoundTrip(t *testing.T) {
	want := NewMarker(manifest.Infohash{1, 2, 3})
	if other := NewMarker(want.Image); other.ID == want.ID {
		t.Fatal("two media have the same id")
	}
	var b bytes.Buffer
	if err := want.Write(&b); err != nil {
		t.Fatal(err)
	}
	got, err := ReadMarker(&b)
	if err != nil || got != want {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestReadMarkerRefuses(t *testing.T) {
	hash := strings.Repeat("0", 40)
	for name, text := range map[string]string{
		"nothing":         "",
		"no JSON":         "hello",
		"another format":  `{"format":2,"id":"0123456789abcdef","image":"` + hash + `"}`,
		"short id":        `{"format":1,"id":"0123","image":"` + hash + `"}`,
		"no hex":          `{"format":1,"id":"0123456789abcdeg","image":"` + hash + `"}`,
		"short infohash":  `{"format":1,"id":"0123456789abcdef","image":"00"}`,
		"endless padding": strings.Repeat(" ", maxMarker+1),
	} {
		if m, err := ReadMarker(strings.NewReader(text)); err == nil {
			t.Errorf("%s: taken for %+v", name, m)
		}
	}
}

func TestISOLabel(t *testing.T) {
	dir := t.TempDir()
	iso := filepath.Join(dir, "x.iso")
	run(t, "xorriso", "-as", "mkisofs", "-quiet", "-V", "SOME_LABEL", "-o", iso, t.TempDir())
	f := open(t, iso)
	if label, err := ISOLabel(f); err != nil || label != "SOME_LABEL" {
		t.Errorf("got %q, %v", label, err)
	}
	if fi, err := f.Stat(); err != nil {
		t.Fatal(err)
	} else if n, err := ISOSize(f); err != nil || n <= isoDescriptorAt || n > fi.Size() {
		t.Errorf("its size is %d, %v, in a file of %d", n, err, fi.Size())
	}
	for name, data := range map[string][]byte{"short": make([]byte, 100), "zeros": make([]byte, 64<<10)} {
		if label, err := ISOLabel(bytes.NewReader(data)); !errors.Is(err, ErrNotISO) {
			t.Errorf("%s: got %q, %v", name, label, err)
		}
		if n, err := ISOSize(bytes.NewReader(data)); !errors.Is(err, ErrNotISO) {
			t.Errorf("%s: got %d, %v", name, n, err)
		}
	}
}

func TestFATLabel(t *testing.T) {
	for _, bits := range []string{"12", "16", "32"} {
		fat := filepath.Join(t.TempDir(), "fat")
		size := map[string]string{"12": "1024", "16": "32768", "32": "65536"}[bits]
		run(t, "mkfs.vfat", "-F", bits, "-n", SettingsLabel, "-C", fat, size)
		if label, err := FATLabel(open(t, fat), 0); err != nil || label != SettingsLabel {
			t.Errorf("FAT%s: got %q, %v", bits, label, err)
		}
	}
	if _, err := FATLabel(bytes.NewReader(make([]byte, 512)), 0); !errors.Is(err, ErrNotFAT) {
		t.Errorf("zeros: %v", err)
	}
}

// TestPartitions compares what we read with what sfdisk says of the same disk.
func TestPartitions(t *testing.T) {
	for name, script := range map[string]string{
		"dos":          "label: dos\n4M,8M,c\n16M,8M,83\n",
		"dos with gap": "label: dos\n4 : start=4M size=8M type=c\n",
		"gpt":          "label: gpt\nsize=4M\nsize=8M\nsize=2M\n",
		"gpt with gap": "label: gpt\n7 : start=4M size=8M\n",
	} {
		t.Run(name, func(t *testing.T) {
			const size = 64 << 20
			disk := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(disk, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(disk, size); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(tool(t, "sfdisk"), "--quiet", "--no-tell-kernel", disk)
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("sfdisk: %v: %s", err, out)
			}
			got, err := Partitions(open(t, disk), size)
			if err != nil {
				t.Fatal(err)
			}
			want := sfdisk(t, disk)
			if len(got) != len(want) {
				t.Fatalf("got %v, sfdisk says %v", got, want)
			}
			for i := range got {
				if got[i] != want[i] {
					t.Errorf("got %v, sfdisk says %v", got[i], want[i])
				}
			}
			backup, err := BackupPartitions(open(t, disk), size)
			if isGPT := strings.HasPrefix(name, "gpt"); isGPT && !slices.Equal(backup, want) || !isGPT && !errors.Is(err, ErrNoPartitions) {
				t.Errorf("at the end %v, %v; sfdisk says %v", backup, err, want)
			}
		})
	}
}

func sfdisk(t *testing.T, disk string) []Partition {
	t.Helper()
	out, err := exec.Command(tool(t, "sfdisk"), "--json", disk).Output()
	if err != nil {
		t.Fatal(err)
	}
	var table struct {
		PartitionTable struct {
			Partitions []struct {
				Node        string
				Start, Size int64
			}
		}
	}
	if err := json.Unmarshal(out, &table); err != nil {
		t.Fatal(err)
	}
	var list []Partition
	for _, p := range table.PartitionTable.Partitions {
		var number int
		for _, c := range strings.TrimPrefix(p.Node, disk) {
			number = number*10 + int(c-'0')
		}
		list = append(list, Partition{number, p.Start * 512, p.Size * 512})
	}
	return list
}

func TestSettingsVolume(t *testing.T) {
	const at, size = 8 << 20, 64 << 20
	build := func(label string) string {
		disk := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(disk, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(disk, size); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(tool(t, "sfdisk"), "--quiet", "--no-tell-kernel", disk)
		cmd.Stdin = strings.NewReader("label: gpt\nstart=1M,size=4M\nstart=8M,size=32M\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("sfdisk: %v: %s", err, out)
		}
		run(t, "mkfs.vfat", "-F", "16", "-n", label, "--offset", "16384", disk, "32768")
		return disk
	}
	p, err := SettingsVolume(open(t, build(SettingsLabel)), size)
	if err != nil || p.Offset != at || p.Number != 2 {
		t.Errorf("got %+v, %v", p, err)
	}
	if _, err := SettingsVolume(open(t, build("HOLIDAY")), size); !errors.Is(err, ErrNoSettings) {
		t.Errorf("another FAT volume: %v", err)
	}
	if _, err := SettingsVolume(bytes.NewReader(make([]byte, 4096)), 4096); !errors.Is(err, ErrNoPartitions) {
		t.Errorf("an empty disk: %v", err)
	}
}

func FuzzPartitions(f *testing.F) {
	mbr := make([]byte, 2048)
	mbr[510], mbr[511] = 0x55, 0xaa
	copy(mbr[446:], []byte{0x80, 0, 0, 0, 0x0c, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0})
	f.Add(bytes.Clone(mbr))
	copy(mbr[512:], "EFI PART")
	mbr[512+72], mbr[512+80], mbr[512+84] = 2, 4, 128
	copy(mbr[1024:], bytes.Repeat([]byte{1}, 128))
	f.Add(bytes.Clone(mbr))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, size := bytes.NewReader(data), int64(len(data))
		list, err := Partitions(r, size)
		if err != nil && list != nil {
			t.Errorf("both %v and %v", list, err)
		}
		for _, p := range list {
			if p.Offset <= 0 || p.Size <= 0 || p.Offset+p.Size > size {
				t.Errorf("%+v lies outside a disk of %d bytes", p, size)
			}
		}
		SettingsVolume(r, size)
		BackupPartitions(r, size)
		ISOLabel(r)
		if n, err := ISOSize(r); err == nil && n < 0 {
			t.Errorf("an ISO 9660 file system of %d bytes", n)
		}
	})
}

func FuzzReadMarker(f *testing.F) {
	var b bytes.Buffer
	if err := NewMarker(manifest.Infohash{}).Write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := ReadMarker(bytes.NewReader(data)); err == nil && len(m.ID) != 16 {
			t.Errorf("took %+v", m)
		}
	})
}

func open(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func tool(t *testing.T, name string) string {
	t.Helper()
	for _, p := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if found, err := exec.LookPath(p); err == nil {
			return found
		}
	}
	t.Skipf("%s is not installed", name)
	return ""
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(tool(t, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}
