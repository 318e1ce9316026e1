package disks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/machine/machinetest"
	"viver.lan/internal/manifest"
	"viver.lan/internal/media"
)

// addDisk adds a whole disk to a machine's /sys and /dev; path is the file with
// its contents.
func addDisk(t testing.TB, m *machinetest.Host, name, path string) {
	t.Helper()
	addBlock(t, m, "/sys/devices/bus/"+name, name, path)
}

// addPartition adds a partition to a disk.
func addPartition(t testing.TB, m *machinetest.Host, disk, name, path string) {
	t.Helper()
	addBlock(t, m, "/sys/devices/bus/"+disk+"/"+name, name, path)
	m.Put(t, "/sys/devices/bus/"+disk+"/"+name+"/partition", "1\n")
}

func addBlock(t testing.TB, m *machinetest.Host, dir, name, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	size := info.Size()
	if info.Mode().Type()&os.ModeDevice != 0 {
		size = 1 << 30
	}
	m.Put(t, dir+"/size", fmt.Sprintln(size/512))
	m.Put(t, dir+"/ro", "0\n")
	m.Put(t, "/sys/class/block/"+name, "-> "+m.Path(dir))
	m.Put(t, "/dev/"+name, "-> "+path)
}

func TestList(t *testing.T) {
	m := machinetest.New(t, nil)
	path := image(t, mib)
	addDisk(t, m, "sda", path)
	addPartition(t, m, "sda", "sda1", path)
	addPartition(t, m, "sda", "sda2", path)
	addDisk(t, m, "nvme0n1", path)
	addPartition(t, m, "nvme0n1", "nvme0n1p1", path)
	addDisk(t, m, "cciss!c0d0", path)
	addDisk(t, m, "sr0", path)
	for _, name := range []string{"nbd0", "loop0", "loop12", "ram1", "zram0", "dm-0", "md127", "fd0", "nbd1p1"} {
		addDisk(t, m, name, path)
	}
	addDisk(t, m, "sdb", image(t, 0)) // a card reader with no card
	m.Put(t, "/sys/devices/bus/sda/sda2/holders/dm-0/", "")
	got, err := List(m)
	if err != nil {
		t.Fatal(err)
	}
	want := []Device{
		{Name: "cciss!c0d0", Path: "/dev/cciss/c0d0", Disk: "cciss!c0d0", Size: mib},
		{Name: "nvme0n1", Path: "/dev/nvme0n1", Disk: "nvme0n1", Size: mib, Partitions: 1},
		{Name: "nvme0n1p1", Path: "/dev/nvme0n1p1", Disk: "nvme0n1", Size: mib},
		{Name: "sda", Path: "/dev/sda", Disk: "sda", Size: mib, Partitions: 2},
		{Name: "sda1", Path: "/dev/sda1", Disk: "sda", Size: mib},
		{Name: "sda2", Path: "/dev/sda2", Disk: "sda", Size: mib, Holders: true},
		{Name: "sr0", Path: "/dev/sr0", Disk: "sr0", Size: mib, Optical: true},
	}
	if !slices.Equal(got, want) {
		t.Errorf("List:\n got %+v\nwant %+v", got, want)
	}
}

// fill makes a mount show what a test wants: files per device name.
func fill(t testing.TB, m *machinetest.Host, contents map[string][]string) {
	m.OnMount = func(source, target, fstype string) {
		entries, _ := os.ReadDir(target)
		for _, e := range entries { // what the mount before this one showed
			_ = os.RemoveAll(filepath.Join(target, e.Name()))
		}
		for _, name := range contents[filepath.Base(source)] {
			name, content, _ := strings.Cut(name, "=")
			path := filepath.Join(target, name)
			_ = os.MkdirAll(filepath.Dir(path), 0o755)
			if strings.HasSuffix(name, "/") {
				_ = os.MkdirAll(path, 0o755)
			} else if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Error(err)
			}
		}
	}
}

// What file systems need is asked of those that Search would mount, each once.
func TestDrivers(t *testing.T) {
	ext4, fat := image(t, 16*mib, "mkfs.ext4", "-q"), image(t, 16*mib, "mkfs.vfat")
	m := machinetest.New(t, nil)
	addDisk(t, m, "sda", fat) // a stale superblock in front of partitions
	addPartition(t, m, "sda", "sda1", ext4)
	addPartition(t, m, "sda", "sda2", ext4)
	addPartition(t, m, "sda", "sda3", image(t, 2*mib, "mkswap", "-q"))
	addDisk(t, m, "sr0", fat)
	if names, silent, err := Drivers(t.Context(), m); err != nil || !slices.Equal(names, []string{"ext4"}) || silent != nil {
		t.Errorf("Drivers = %q, %q, %v; want ext4 once", names, silent, err)
	}
	addDisk(t, m, "sdb", fat)
	if names, silent, err := Drivers(t.Context(), m); err != nil || !slices.Equal(names, append([]string{"ext4", "vfat"}, tables...)) || silent != nil {
		t.Errorf("Drivers = %q, %q, %v; want ext4 and vfat", names, silent, err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	addDisk(t, m, "sdc", fat)
	if err := os.Remove(m.Path("/dev/sdc")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(m.Path("/dev/sdc"), 0o600); err != nil { // hangs: nobody writes
		t.Fatal(err)
	}
	if _, silent, err := Drivers(over, m); err != nil || !slices.Contains(silent, "sdc") {
		t.Errorf("silent %q, %v; want sdc", silent, err)
	}
}

func TestSearch(t *testing.T) {
	ext4 := image(t, 16*mib, "mkfs.ext4", "-q")
	fat := image(t, 16*mib, "mkfs.vfat")
	m := machinetest.New(t, nil)
	addDisk(t, m, "sda", ext4) // a stale superblock in front of partitions
	addPartition(t, m, "sda", "sda1", fat)
	addPartition(t, m, "sda", "sda2", ext4)
	addPartition(t, m, "sda", "sda3", image(t, 2*mib, "mkswap", "-q"))
	addDisk(t, m, "sdb", ext4) // the boot medium
	addDisk(t, m, "sdc", ext4) // no marker, only something of its name
	addDisk(t, m, "sr0", ext4)
	digest := strings.Repeat("ab", 32)
	fill(t, m, map[string][]string{
		"sda1": {"viver-data/"}, "sda2": {"viver-data/" + digest + "/upper/", "viver-data/notes=x", "viver-data/home/", "viver-data/network=abc\n",
			"viver-data/identity-1.key=secret", "viver-data/identity-2.key/", "viver-data/identity-3.key=" + strings.Repeat("x", maxKept+1)},
		"sdb": {"viver-data/"}, "sdc": {"viver-data=a file"},
	})
	s, err := Search(t.Context(), m, filepath.Join(t.TempDir(), "look"), "sdb")
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Found) != 2 || s.Found[0].Device.Name != "sda1" || s.Found[1].Device.Name != "sda2" {
		t.Fatalf("Found = %+v, notes %q", s.Found, s.Notes)
	}
	if !strings.Contains(s.Found[0].Refusal, "vfat") || s.Found[1].Refusal != "" || !slices.Equal(s.Found[1].Images, []string{digest}) {
		t.Errorf("Found = %+v", s.Found)
	}
	if s.Found[0].Homes || !s.Found[1].Homes {
		t.Errorf("homes: %v and %v", s.Found[0].Homes, s.Found[1].Homes)
	}
	if kept := s.Found[1].Kept; len(kept) != 2 || string(kept[NetworkNameFile]) != "abc\n" || string(kept["identity-1.key"]) != "secret" {
		t.Errorf("kept: %q", kept)
	}
	flags := fmt.Sprintf("%#x", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC)
	var mounts []string
	protected := ""
	for _, call := range m.Calls() {
		words := strings.Fields(call)
		switch words[0] {
		case "protect":
			protected = words[1]
		case "unprotect":
			protected = ""
		case "mount":
			if words[1] != protected || words[4] != flags {
				t.Errorf("%q with %q write-protected, want flags %s", call, protected, flags)
			}
			mounts = append(mounts, words[1]+" "+words[3]+" "+strings.Join(words[5:], " "))
		}
	}
	if want := []string{"/dev/sda1 vfat ", "/dev/sda2 ext4 noload", "/dev/sdc ext4 noload"}; !slices.Equal(mounts, want) {
		t.Errorf("looked into %q, want %q", mounts, want)
	}
}

// Of the medium's own disk only what was made for saved data is looked into, by a loop
// device, because the kernel mounts no part of a disk that is mounted.
func TestSearchBesideTheMedium(t *testing.T) {
	m := machinetest.New(t, nil)
	addDisk(t, m, "sdb", image(t, mib))
	addPartition(t, m, "sdb", "sdb4", image(t, 16*mib, "mkfs.ext4", "-q"))
	addPartition(t, m, "sdb", "sdb6", image(t, 16*mib, "mkfs.ext4", "-q", "-L", media.DataLabel))
	fill(t, m, map[string][]string{"sdb4": {"viver-data/"}, "sdb6": {"viver-data/"}})
	s, err := Search(t.Context(), m, filepath.Join(t.TempDir(), "look"), "sdb")
	if err != nil || len(s.Found) != 1 || s.Found[0].Device.Name != "sdb6" || s.Found[0].Refusal != "" {
		t.Fatalf("Search = %+v, %v", s, err)
	}
	if saved, err := MountSavedData(m, s.Found, manifest.Digest{}, t.TempDir()); err != nil || saved.Device != "sdb6" {
		t.Errorf("MountSavedData = %+v, %v", saved, err)
	}
	var loops []string
	for _, call := range m.Calls() {
		if strings.Contains(call, "loop") {
			loops = append(loops, call)
		}
	}
	if want := []string{"loop /dev/sdb6 false", "unloop /dev/sdb6", "loop /dev/sdb6 true", "unloop /dev/sdb6"}; !slices.Equal(loops, want) {
		t.Errorf("loop devices: %q, want %q", loops, want)
	}
}

func TestSearchLeavesContainersAlone(t *testing.T) {
	m := machinetest.New(t, nil)
	mirror := image(t, 16*mib, "mkfs.ext4", "-q")
	poke(t, mirror, 16*mib-0x10000, "\xfc\x4e\x2b\xa9")
	ext4 := image(t, 16*mib, "mkfs.ext4", "-q")
	addDisk(t, m, "sda", mirror)
	addPartition(t, m, "sda", "sda1", ext4)
	addDisk(t, m, "sdb", ext4)
	m.Put(t, "/sys/devices/bus/sdb/holders/dm-0/", "")
	s, err := Search(t.Context(), m, filepath.Join(t.TempDir(), "look"), "")
	if err != nil || len(m.Calls()) != 0 || len(s.Found) != 0 {
		t.Errorf("Search = %+v, %v, calls %q", s, err, m.Calls())
	}
	for _, name := range []string{"sda ", "sda1 ", "sdb "} {
		if !strings.Contains(strings.Join(s.Notes, "\n")+" ", name) {
			t.Errorf("no sentence about %s: %q", name, s.Notes)
		}
	}
}

func TestHibernatedDisksAreLeftAlone(t *testing.T) {
	ext4 := image(t, 16*mib, "mkfs.ext4", "-q")
	dirty := image(t, 16*mib, "mkfs.ext4", "-q")
	run(t, "debugfs", "-w", "-R", "feature needs_recovery", dirty)
	swap := image(t, 2*mib, "mkswap", "-q")
	poke(t, swap, 4096-10, "S1SUSPEND\x00")
	sleeping := make([]byte, 8192)
	copy(sleeping[4096-10:], "S1SUSPEND\x00")

	for name, where := range map[string]string{"partition": "swap space sda1", "file": "file swapfile on sda1"} {
		t.Run(name, func(t *testing.T) {
			m := machinetest.New(t, nil)
			contents := map[string][]string{"sda2": {"viver-data/"}, "sdb1": {"viver-data/"}, "sdc1": {"viver-data/"}}
			addDisk(t, m, "sda", image(t, mib))
			if name == "file" {
				addPartition(t, m, "sda", "sda1", ext4)
				contents["sda1"] = []string{"swapfile=" + string(sleeping)}
			} else {
				addPartition(t, m, "sda", "sda1", swap)
			}
			addPartition(t, m, "sda", "sda2", ext4)
			addPartition(t, m, "sdb", "sdb1", ext4)
			addPartition(t, m, "sdc", "sdc1", dirty)
			fill(t, m, contents)
			s, err := Search(t.Context(), m, filepath.Join(t.TempDir(), "look"), "sdx")
			if err != nil || len(s.Found) != 3 {
				t.Fatalf("Search = %+v, %v", s, err)
			}
			if r := s.Found[0].Refusal; !strings.Contains(r, where) {
				t.Errorf("sda2: %q, want a word about %q", r, where)
			}
			if r := s.Found[1].Refusal; r != "" {
				t.Errorf("sdb1 was unmounted cleanly and is on another disk, but: %q", r)
			}
			if r := s.Found[2].Refusal; !strings.Contains(r, "another disk") {
				t.Errorf("sdc1: %q", r)
			}
			if len(s.Notes) != 1 || !strings.Contains(s.Notes[0], where) {
				t.Errorf("notes %q", s.Notes)
			}
		})
	}
}

func TestSearchGivesUpOnADeadDisk(t *testing.T) {
	m := machinetest.New(t, nil)
	addDisk(t, m, "sda", image(t, mib))
	// A pipe that nobody writes to is a disk that never answers.
	if err := os.Remove(m.Path("/dev/sda")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(m.Path("/dev/sda"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // let the reader go
		if f, err := os.OpenFile(m.Path("/dev/sda"), os.O_RDWR, 0); err == nil {
			f.Close()
		}
	})
	addDisk(t, m, "sdb", image(t, 16*mib, "mkfs.ext4", "-q"))
	fill(t, m, map[string][]string{"sdb": {"viver-data/"}})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	s, err := Search(ctx, m, filepath.Join(t.TempDir(), "look"), "")
	if err != nil || !strings.Contains(strings.Join(s.Notes, "\n"), "sda was not looked into: it does not answer") {
		t.Errorf("Search = %+v, %v", s, err)
	}
}

func found(name string, change func(*Found)) Found {
	f := Found{Device: Device{Name: name, Path: "/dev/" + name, Disk: name}, FS: Superblock{Type: "ext4", Clean: true}}
	if change != nil {
		change(&f)
	}
	return f
}

func TestMountSavedData(t *testing.T) {
	digest := manifest.Digest{0xab}
	holds := func(f *Found) { f.Images = []string{digest.String()} }
	refuse := func(f *Found) { f.Refusal = "it is written in the stars" }
	for name, tt := range map[string]struct {
		found  []Found
		break_ func(*machinetest.Host)
		device string
		note   string
		err    string
	}{
		"none":             {err: "no disk has a folder viver-data"},
		"one":              {found: []Found{found("sda1", nil)}, device: "sda1"},
		"first by name":    {found: []Found{found("sdb1", nil), found("sda1", nil)}, device: "sda1", note: "disks sda1, sdb1 all have a folder viver-data; sda1 is used, it is the first by name"},
		"data before name": {found: []Found{found("sda1", nil), found("sdb1", holds)}, device: "sdb1", note: "it holds data of this image"},
		"refused":          {found: []Found{found("sda1", refuse)}, err: "sda1: it is written in the stars"},
		"refused, other":   {found: []Found{found("sda1", refuse), found("sdb1", nil)}, device: "sdb1"},
		"full": {found: []Found{found("sda1", nil)}, break_: func(m *machinetest.Host) { m.Free = 5 << 20 },
			err: "sda1: the disk is full: 5 MiB are left, at least 64 are needed"},
		"mount fails, next": {found: []Found{found("sda1", nil), found("sdb1", nil)}, device: "sdb1", note: "sdb1 is used", break_: func(m *machinetest.Host) {
			m.Fail = func(call string) error {
				if strings.HasPrefix(call, "mount /dev/sda1") {
					return unix.EROFS
				}
				return nil
			}
		}},
		"marker gone": {found: []Found{found("sdc1", nil)}, err: "sdc1: no disk has a folder"},
	} {
		t.Run(name, func(t *testing.T) {
			m := machinetest.New(t, nil)
			fill(t, m, map[string][]string{"sda1": {"viver-data/"}, "sdb1": {"viver-data/"}})
			if tt.break_ != nil {
				tt.break_(m)
			}
			dir := m.Path("/run/viver/saved")
			saved, err := MountSavedData(m, tt.found, digest, dir)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				nothingMounted(t, m)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			home := filepath.Join(dir, "viver-data", digest.String())
			if saved.Device != tt.device || !strings.Contains(saved.Note, tt.note) || saved.Note != "" && tt.note == "" ||
				saved.Upper != filepath.Join(home, "upper") || saved.Work != filepath.Join(home, "work") {
				t.Errorf("saved = %+v", saved)
			}
			if info, err := os.Stat(saved.Upper); err != nil || info.Mode().Perm() != 0o755 {
				t.Errorf("upper: %v %v; its mode becomes that of /", info, err)
			}
		})
	}
}

func TestMountSavedDataRefusesLinks(t *testing.T) {
	m := machinetest.New(t, nil)
	digest := manifest.Digest{1}
	outside := t.TempDir()
	m.OnMount = func(source, target, fstype string) {
		_ = os.Mkdir(filepath.Join(target, Marker), 0o755)
		_ = os.Symlink(outside, filepath.Join(target, Marker, digest.String()))
	}
	_, err := MountSavedData(m, []Found{found("sda1", nil)}, digest, m.Path("/saved"))
	if err == nil || errors.Is(err, ErrNoMarker) {
		t.Errorf("error %v, want one about the link", err)
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Errorf("the link was followed: %v", entries)
	}
}

// nothingMounted checks that what was mounted is not any more.
func nothingMounted(t *testing.T, m *machinetest.Host) {
	t.Helper()
	mounted := 0
	for _, call := range m.Calls() {
		mounted += strings.Count(call, "mount ") - 2*strings.Count(call, "unmount ")
	}
	if mounted != 0 {
		t.Errorf("left mounted: %q", m.Calls())
	}
}
