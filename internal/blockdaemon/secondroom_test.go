package blockdaemon

import (
	"os"
	"path/filepath"
	"testing"

	"viver.lan/internal/metainfo"
)

func TestSecondBudget(t *testing.T) {
	const mebi = 1 << 20
	for _, c := range []struct{ available, used, size, want int64 }{
		{3000 * mebi, 0, 600 * mebi, 600 * mebi},
		{900 * mebi, 0, 600 * mebi, 300 * mebi},
		{48 * mebi, 0, 600 * mebi, 16 * mebi},
		{47 * mebi, 0, 600 * mebi, 0},
		{1 * mebi, 500 * mebi, 600 * mebi, 500 * mebi},
		{12 * mebi, 0, 4 * mebi, 4 * mebi},
	} {
		if got, err := secondBudget("memory", c.available, c.used, c.size); got != c.want || (err != nil) != (c.want == 0) {
			t.Errorf("of %d bytes, with %d used, for an image of %d: %d, %v; want %d", c.available, c.used, c.size, got, err, c.want)
		}
	}
}

func TestAvailableMemory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "meminfo")
	for text, want := range map[string]int64{
		"MemTotal:  2000 kB\nMemAvailable:    1000 kB\n": 1000 << 10,
		"MemTotal:  2000 kB\n":                           0,
		"MemAvailable: many\n":                           0,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := availableMemory(file); got != want || (err != nil) != (want == 0) {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
}

// What an earlier daemon left of an image stays, of others nothing.
func TestClearOthers(t *testing.T) {
	dir := t.TempDir()
	keep := filepath.Join(dir, "new")
	for _, file := range []string{keep, filepath.Join(dir, "old")} {
		if err := os.WriteFile(file, make([]byte, 8192), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	used, err := clearOthers(dir, keep)
	if entries, _ := os.ReadDir(dir); err != nil || used < 8192 || len(entries) != 1 {
		t.Errorf("%d bytes used, %d files left, %v", used, len(entries), err)
	}
}

// On a disk it is the same; the directory need not be there.
func TestSecondDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "second")
	info := &metainfo.Info{Size: 4 << 10, PieceLength: 4 << 10}
	for _, left := range []string{"old", info.Infohash.String()} {
		cfg, err := secondDisk(dir, info)
		if err != nil || cfg.Budget != info.Size || filepath.Dir(cfg.Path) != dir {
			t.Errorf("%+v, %v", cfg, err)
		}
		if err := os.WriteFile(filepath.Join(dir, left), make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := secondDisk(dir, info); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(dir + "/*"); err != nil || len(left) != 1 || filepath.Base(left[0]) != info.Infohash.String() {
		t.Errorf("left: %v, %v", left, err)
	}
}
