package disks

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Cache is a file on a disk for the pieces of an image.
type Cache struct {
	// Device that holds it, e.g. sdb1.
	Device string
	// File is the path of the file, which need not exist.
	File string
	// Budget is how many bytes of pieces the file may hold.
	Budget int64
}

// pieceFile ends the name of a file of pieces; what comes before it names the
// image.
const pieceFile = ".pieces"

// spare is the part of a disk, one in so many, that is left free: a full file
// system is slow, and its owner may need it too.
const spare = 20

// MountCache mounts one of the file systems with a CacheMarker read-write at
// dir and returns the place in it for the pieces of an image, which has this
// name and size in bytes. The first by name with more room than least is taken.
// Pieces of other images are deleted when the room is needed. The error is the
// reason why pieces stay in memory.
func MountCache(m OS, found []Found, image string, size, least int64, dir string) (*Cache, error) {
	if len(found) == 0 {
		return nil, errors.New("no disk has a folder " + CacheMarker)
	}
	found = slices.Clone(found)
	slices.SortFunc(found, func(a, b Found) int { return strings.Compare(a.Device.Name, b.Device.Name) })
	var reasons []error
	for _, f := range found {
		if f.Refusal != "" {
			reasons = append(reasons, fmt.Errorf("%s: %s", f.Device.Name, f.Refusal))
			continue
		}
		cache, err := mountCache(m, f, image+pieceFile, size, least, dir)
		if err == nil {
			return cache, nil
		}
		reasons = append(reasons, fmt.Errorf("%s: %w", f.Device.Name, err))
	}
	return nil, fmt.Errorf("no cache disk is used: %w", errors.Join(reasons...))
}

func mountCache(m OS, f Found, name string, size, least int64, dir string) (_ *Cache, err error) {
	if err := mountForWriting(m, f, dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Unmount(dir, 0))
		}
	}()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if info, err := root.Lstat(CacheMarker); err != nil || !info.IsDir() {
		return nil, errors.New("the folder " + CacheMarker + " is gone")
	}
	room := func() (int64, error) {
		free, _, err := m.Space(dir)
		return free + occupied(root, filepath.Join(CacheMarker, name)) - f.Device.Size/spare, err
	}
	bytes, err := room()
	if err == nil && bytes < size {
		if err = dropOthers(root, name); err == nil {
			bytes, err = room()
		}
	}
	switch {
	case err != nil:
		return nil, err
	case bytes < size && bytes <= least:
		return nil, fmt.Errorf("the disk has room for %d MiB, no more than memory with %d", max(bytes, 0)>>20, least>>20)
	}
	return &Cache{Device: f.Device.Name, File: filepath.Join(dir, CacheMarker, name), Budget: min(bytes, size)}, nil
}

// occupied returns how many bytes a file takes on its disk.
func occupied(root *os.Root, name string) int64 {
	info, err := root.Lstat(name)
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return 0
}

// dropOthers deletes the pieces of other images.
func dropOthers(root *os.Root, name string) error {
	entries, err := fs.ReadDir(root.FS(), CacheMarker)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != name && e.Type().IsRegular() && strings.HasSuffix(e.Name(), pieceFile) {
			if err := root.Remove(filepath.Join(CacheMarker, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
