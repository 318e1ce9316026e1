package disks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"viver.lan/internal/manifest"
)

// SavedData is a place on a disk for what a node writes to its root.
type SavedData struct {
	// Device that holds it, e.g. sda1.
	Device string
	// Upper and Work are the directories for overlay's mount options, on one
	// file system and used by nothing else.
	Upper, Work string
	// Note is a sentence when there was a choice to make.
	Note string
}

// ErrNoMarker is returned when no disk has a marker.
var ErrNoMarker = errors.New("no disk has a folder " + Marker)

// A disk with less than this left is full: the system would fail at the first
// log rotation, while in memory it runs.
const (
	minFree   = 64 << 20
	minInodes = 1024
)

// MountSavedData mounts one of the marked file systems read-write at dir and
// returns the place in it for the image with this digest (SHA-256 of its root
// file system): one that already has data of the image first, then the first by
// name. The error is the reason why the node works in
// memory instead.
func MountSavedData(m OS, found []Found, image manifest.Digest, dir string) (*SavedData, error) {
	if len(found) == 0 {
		return nil, ErrNoMarker
	}
	holds := func(f Found) bool { return slices.Contains(f.Images, image.String()) }
	fit, reasons := InOrder(found, image)
	for _, f := range fit {
		saved, err := mountOne(m, f, image, dir)
		if err == nil {
			saved.Note = choice(fit, f, holds)
			return saved, nil
		}
		reasons = append(reasons, fmt.Errorf("%s: %w", f.Device.Name, err))
	}
	return nil, fmt.Errorf("saved data is not used: %w", errors.Join(reasons...))
}

// InOrder returns the marked file systems that may be written, in the order in
// which MountSavedData tries them, and why the others are not among them.
func InOrder(found []Found, image manifest.Digest) (fit []Found, refused []error) {
	for _, f := range found {
		if f.Refusal != "" {
			refused = append(refused, fmt.Errorf("%s: %s", f.Device.Name, f.Refusal))
			continue
		}
		fit = append(fit, f)
	}
	holds := func(f Found) bool { return slices.Contains(f.Images, image.String()) }
	slices.SortStableFunc(fit, func(a, b Found) int {
		switch {
		case holds(a) && !holds(b):
			return -1
		case holds(b) && !holds(a):
			return 1
		}
		return strings.Compare(a.Device.Name, b.Device.Name)
	})
	return fit, refused
}

func choice(fit []Found, taken Found, holds func(Found) bool) string {
	if len(fit) < 2 {
		return ""
	}
	var names []string
	for _, f := range fit {
		names = append(names, f.Device.Name)
	}
	slices.Sort(names)
	why := "it is the first by name"
	if holds(taken) {
		why = "it holds data of this image"
	}
	return fmt.Sprintf("disks %s all have a folder %s; %s is used, %s", strings.Join(names, ", "), Marker, taken.Device.Name, why)
}

func mountOne(m OS, f Found, image manifest.Digest, dir string) (_ *SavedData, err error) {
	if err := mountForWriting(m, f, dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Unmount(dir, 0))
		}
	}()
	free, inodes, err := m.Space(dir)
	switch {
	case err != nil:
		return nil, err
	case free < minFree:
		return nil, fmt.Errorf("the disk is full: %d MiB are left, at least %d are needed", free>>20, int64(minFree)>>20)
	case inodes < minInodes:
		return nil, fmt.Errorf("the disk is full: %d inodes are left, at least %d are needed", inodes, minInodes)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// The marker was there at the search; if it is not now, this is another disk,
	// and nothing is written to it.
	if info, err := root.Lstat(Marker); err != nil || !info.IsDir() {
		return nil, ErrNoMarker
	}
	home := filepath.Join(Marker, image.String())
	for _, name := range []string{"", "upper", "work"} {
		if err := plainDir(root, filepath.Join(home, name)); err != nil {
			return nil, err
		}
	}
	return &SavedData{
		Device: f.Device.Name,
		Upper:  filepath.Join(dir, home, "upper"),
		Work:   filepath.Join(dir, home, "work"),
	}, nil
}

// mountForWriting mounts a marked file system at dir.
func mountForWriting(m OS, f Found, dir string) error {
	how, ok := mountable[f.FS.Type]
	if !ok {
		return fmt.Errorf("%s is not a file system that can be written", f.FS.Type)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return f.Device.mount(m, dir, how.driver, unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOATIME, "")
}

// plainDir makes a directory, or checks that there is one: the kernel would
// follow a symbolic link out of the disk.
func plainDir(root *os.Root, name string) error {
	// The upper directory's mode becomes that of "/".
	if err := root.Mkdir(name, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is %s, expected a directory", name, info.Mode().Type())
	}
	return nil
}
