package disks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"viver.lan/internal/machine/machinetest"
)

func TestSearchFindsCaches(t *testing.T) {
	ext4 := image(t, 16*mib, "mkfs.ext4", "-q")
	m := machinetest.New(t, nil)
	for _, name := range []string{"sda", "sdb", "sdc", "sdd"} {
		addDisk(t, m, name, ext4)
	}
	addDisk(t, m, "sde", image(t, 16*mib, "mkfs.vfat"))
	fill(t, m, map[string][]string{"sda": {"viver-data/"}, "sdb": {"viver-cache/"}, "sdc": {"viver-data/", "viver-cache/"},
		"sdd": {"viver-cache=a file"}, "sde": {"viver-cache/"}})
	s, err := Search(t.Context(), m, filepath.Join(t.TempDir(), "look"), "")
	if err != nil {
		t.Fatal(err)
	}
	names := func(found []Found) string {
		var out []string
		for _, f := range found {
			out = append(out, f.Device.Name)
			if f.Refusal != "" {
				out = append(out, "refused")
			}
		}
		return strings.Join(out, " ")
	}
	if names(s.Found) != "sda sdc" || names(s.Caches) != "sdb sdc sde refused" {
		t.Errorf("found %s, caches %s", names(s.Found), names(s.Caches))
	}
}

func TestMountCache(t *testing.T) {
	large := func(f *Found) { f.Device.Size = 1000 * mib }
	refuse := func(f *Found) { f.Refusal = "it is written in the stars" }
	for name, tt := range map[string]struct {
		found  []Found
		free   int64
		fail   string // a call that fails
		device string
		budget int64
		err    string
	}{
		"none":              {err: "no disk has a folder viver-cache"},
		"whole image":       {found: []Found{found("sda1", large)}, free: 900 * mib, device: "sda1", budget: 500 * mib},
		"part":              {found: []Found{found("sda1", large)}, free: 300 * mib, device: "sda1", budget: 250 * mib},
		"less than memory":  {found: []Found{found("sda1", large)}, free: 149 * mib, err: "sda1: the disk has room for 99 MiB, no more than memory with 100"},
		"full":              {found: []Found{found("sda1", large)}, free: 10 * mib, err: "room for 0 MiB"},
		"refused":           {found: []Found{found("sda1", refuse)}, free: 900 * mib, err: "sda1: it is written in the stars"},
		"refused, other":    {found: []Found{found("sda1", refuse), found("sdb1", large)}, free: 900 * mib, device: "sdb1", budget: 500 * mib},
		"mount fails, next": {found: []Found{found("sdb1", large), found("sda1", large)}, free: 900 * mib, fail: "mount /dev/sda1", device: "sdb1", budget: 500 * mib},
		"marker gone":       {found: []Found{found("sdc1", large)}, free: 900 * mib, err: "sdc1: the folder viver-cache is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			m := machinetest.New(t, nil)
			m.Free = tt.free
			m.Fail = func(call string) error {
				if tt.fail != "" && strings.HasPrefix(call, tt.fail) {
					return unix.EIO
				}
				return nil
			}
			fill(t, m, map[string][]string{"sda1": {"viver-cache/"}, "sdb1": {"viver-cache/"}})
			dir := m.Path("/cache")
			cache, err := MountCache(m, tt.found, "abc", 500*mib, 100*mib, dir)
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
			if want := filepath.Join(dir, "viver-cache", "abc.pieces"); cache.Device != tt.device || cache.Budget != tt.budget || cache.File != want {
				t.Errorf("cache = %+v", cache)
			}
		})
	}
}

// Pieces of other images make room when it is needed, and nothing else does.
func TestMountCacheDropsOtherImages(t *testing.T) {
	for _, free := range []int64{900 * mib, 300 * mib} {
		m := machinetest.New(t, nil)
		m.Free = free
		dir := m.Path("/cache")
		fill(t, m, map[string][]string{"sda1": {"viver-cache/old.pieces=x", "viver-cache/letter.txt=x", "viver-cache/abc.pieces=x", "home.pieces=x"}})
		f := found("sda1", func(f *Found) { f.Device.Size = 1000 * mib })
		if _, err := MountCache(m, []Found{f}, "abc", 500*mib, 0, dir); err != nil {
			t.Fatal(err)
		}
		for name, stays := range map[string]bool{"viver-cache/old.pieces": free == 900*mib, "viver-cache/letter.txt": true, "viver-cache/abc.pieces": true, "home.pieces": true} {
			if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != stays {
				t.Errorf("%d MiB free: %s: %v", free/mib, name, err)
			}
		}
	}
}
