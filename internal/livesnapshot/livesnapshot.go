// Package livesnapshot has a running system's files as they were at one moment, where its file systems
// can do that: it takes a read-only snapshot of each btrfs subvolume that is mounted,
// and one of each thin volume of LVM, by lvcreate, and mounts them as the system is mounted.
//
// Other file systems below that are shown as they are, live. The invariant: its snapshots are
// deleted at Close, and those of a process that was killed by the next Open, which finds by a lock, or by
// the number of the process, that nobody reads them any more.
package livesnapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"viver.lan/internal/mountinfo"
	"viver.lan/internal/thread"
)

// ErrNone says that a file system has no snapshots.
var ErrNone = errors.New("the file system has no snapshots that VIVER takes (btrfs and thin volumes of LVM have)")

// Snapshot is a system as it was at one moment.
type Snapshot struct {
	// Notes are for people: what of it is still live.
	Notes []string

	root   string // where it is mounted
	made   []made
	mounts *thread.Mounts
}

// made is a snapshot, with what deletes it.
type made struct {
	of     uint64 // the device number of the original
	path   string // of the directory, or of the device
	delete func() error
}

// Open takes snapshots of what is mounted at root, and of what is mounted below. dir is an
// empty directory of the caller's.
func Open(ctx context.Context, root, dir string) (*Snapshot, error) {
	s := &Snapshot{root: filepath.Join(dir, "root")}
	list, err := mountinfo.List()
	if err != nil {
		return nil, err
	}
	var top mountinfo.Mount
	for _, m := range list { // later ones cover earlier ones
		if m.Point == root {
			top = m
		}
	}
	if !isSubvolume(root) && !isThin(ctx, top) {
		return nil, ErrNone
	}
	s.mounts, err = thread.OpenMounts(dir, func() error {
		if err := os.Mkdir(s.root, 0o700); err != nil {
			return err
		}
		return s.mount(ctx, root, top, list)
	})
	if err != nil {
		return nil, errors.Join(err, s.delete())
	}
	return s, nil
}

// Do runs f where the files are, at the directory that f is told. Files that it opens can be read
// anywhere, until Close.
func (s *Snapshot) Do(f func(dir string) error) error {
	return s.mounts.Do(func() error { return f(s.root) })
}

// Close deletes the snapshots.
func (s *Snapshot) Close() error { return errors.Join(s.mounts.Close(), s.delete()) }

// mount has each place of the system in the snapshot, those above first.
func (s *Snapshot) mount(ctx context.Context, root string, top mountinfo.Mount, list []mountinfo.Mount) error {
	if err := s.show(ctx, top, s.root); err != nil {
		return err
	}
	for _, m := range list {
		place, err := filepath.Rel(root, m.Point)
		if err != nil || place == "." || strings.HasPrefix(place, "..") || !isShown(place, m) {
			continue
		}
		at := filepath.Join(s.root, place)
		if isSubvolume(m.Point) || isThin(ctx, m) {
			if err = s.show(ctx, m, at); err == nil {
				continue
			}
			s.Notes = append(s.Notes, fmt.Sprintf("%s is read while it changes: %v", m.Point, err))
		}
		// Without its directory it was covered by another, or is younger than the snapshot.
		if err := bind(m.Point, at); err != nil && !errors.Is(err, unix.ENOENT) {
			s.Notes = append(s.Notes, fmt.Sprintf("warning: %s is not in the image: %v", m.Point, err))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// show mounts a snapshot of what is mounted somewhere. What is mounted twice has one.
func (s *Snapshot) show(ctx context.Context, m mountinfo.Mount, at string) error {
	var st unix.Stat_t
	if err := unix.Stat(m.Point, &st); err != nil {
		return &os.PathError{Op: "stat", Path: m.Point, Err: err}
	}
	take, mount := s.takeSubvolume, bind
	if !isSubvolume(m.Point) {
		take, mount = s.takeThin, func(device, at string) error { return mountThin(device, at, m.Type) }
	}
	i := slices.IndexFunc(s.made, func(known made) bool { return known.of == st.Dev })
	if i < 0 {
		one, err := take(ctx, m)
		if one.delete != nil {
			one.of = st.Dev
			s.made = append(s.made, one)
		}
		if err != nil {
			return fmt.Errorf("no snapshot of %s: %w", m.Point, err)
		}
		i = len(s.made) - 1
	}
	return mount(s.made[i].path, at)
}

// isShown reports whether a place may have something of the system, or for its report. An automount
// would begin to mount.
func isShown(place string, m mountinfo.Mount) bool {
	top, _, _ := strings.Cut(place, "/")
	return top != "proc" && top != "sys" && top != "dev" && top != "run" && m.Type != "autofs"
}

func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", from, err)
	}
	return nil
}

// delete deletes what was made, also when the build was interrupted.
func (s *Snapshot) delete() error {
	var errs []error
	for i := len(s.made) - 1; i >= 0; i-- {
		errs = append(errs, s.made[i].delete())
	}
	return errors.Join(errs...)
}
