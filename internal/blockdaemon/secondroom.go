package blockdaemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"viver.lan/internal/metainfo"
	"viver.lan/internal/piecestore"
)

const (
	// secondShare is the part, one in so many, of the memory that is available which the
	// second image may take; on a server, of the disk.
	secondShare = 3
	// leastSecond is the least that is of use to others.
	leastSecond = 16 << 20
)

// secondBudget returns how many bytes pieces of a second image may take, of which so many
// are used already; what says of what they are available.
func secondBudget(what string, available, used, size int64) (int64, error) {
	budget := min(size, max(used, (available+used)/secondShare))
	if budget < min(size, leastSecond) {
		return 0, fmt.Errorf("%d MiB of %s are available, and a third of it is too little for a second image: want %d MiB", available>>20, what, secondShare*leastSecond>>20)
	}
	return budget, nil
}

// secondRoom makes room for pieces of an image in memory, in a tmpfs of its own at dir: one
// that outgrows it harms nothing else. What an earlier daemon left of the image stays, of
// others nothing.
func secondRoom(dir string, info *metainfo.Info) (cfg piecestore.Config, err error) {
	cfg = piecestore.Config{Path: filepath.Join(dir, info.Infohash.String()), Info: info}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return cfg, fmt.Errorf("make room for a second image: %w", err)
	}
	mounted, err := isMount(dir)
	if err != nil {
		return cfg, fmt.Errorf("make room for a second image: %w", err)
	}
	var used int64
	if mounted {
		if used, err = clearOthers(dir, cfg.Path); err != nil {
			return cfg, fmt.Errorf("make room for a second image: %w", err)
		}
	}
	available, err := availableMemory("/proc/meminfo")
	if err == nil {
		cfg.Budget, err = secondBudget("memory", available, used, info.Size)
	}
	if err != nil {
		return cfg, err
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if mounted {
		flags |= unix.MS_REMOUNT
	}
	// Somewhat more than the budget: tmpfs counts pages, not bytes.
	if err := unix.Mount("pieces", dir, "tmpfs", flags, fmt.Sprintf("mode=0700,size=%d", cfg.Budget+leastSecond)); err != nil {
		return cfg, fmt.Errorf("make room for a second image: mount %s: %w", dir, err)
	}
	return cfg, nil
}

// secondDisk makes room for them on a disk, in the directory dir: a server has its first
// image there, and its memory is others'.
func secondDisk(dir string, info *metainfo.Info) (cfg piecestore.Config, err error) {
	cfg = piecestore.Config{Path: filepath.Join(dir, info.Infohash.String()), Info: info}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return cfg, fmt.Errorf("make room for a second image: %w", err)
	}
	used, err := clearOthers(dir, cfg.Path)
	if err != nil {
		return cfg, fmt.Errorf("make room for a second image: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return cfg, fmt.Errorf("find out how much room there is in %s: %w", dir, err)
	}
	cfg.Budget, err = secondBudget("the disk of "+dir, int64(fs.Bavail)*fs.Bsize, used, info.Size)
	return cfg, err
}

// isMount reports whether something is mounted at dir.
func isMount(dir string) (bool, error) {
	var at, above unix.Stat_t
	if err := unix.Stat(dir, &at); err != nil {
		return false, err
	}
	if err := unix.Stat(filepath.Dir(dir), &above); err != nil {
		return false, err
	}
	return at.Dev != above.Dev, nil
}

// clearOthers removes all files of dir but one, and returns the bytes that this one takes.
func clearOthers(dir, keep string) (used int64, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if path != keep {
			if err := os.RemoveAll(path); err != nil {
				return 0, err
			}
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return 0, err
		}
		used = st.Blocks * 512 // whatever the block size is (stat(2))
	}
	return used, nil
}

// availableMemory is what the kernel thinks can be had without swapping, in bytes.
func availableMemory(meminfo string) (int64, error) {
	text, err := os.ReadFile(meminfo)
	if err != nil {
		return 0, fmt.Errorf("find out how much memory is available: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "MemAvailable:" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("find out how much memory is available: %s does not say MemAvailable", meminfo)
}
