// Package livesnapshot has a running system's files as they were at one moment, where its file systems
// can do that: it takes a read-only snapshot of each btrfs subvolume that is mounted, by
// the program btrfs, and mounts them as the system is mounted.
//
// Other file systems below that are shown as they are, live. It knows nothing of LVM. The
// invariant: its snapshots are deleted at Close, and those of a process that was killed by the
// next Open; a lock on each tells whether somebody still reads it.
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

	"viver.lan/internal/hosttool"
	"viver.lan/internal/mountinfo"
	"viver.lan/internal/thread"
)

// Prefix is what the names of snapshots begin with, which are at the top of each subvolume.
const Prefix = ".viver-snapshot."

// ErrNone says that a file system has no snapshots.
var ErrNone = errors.New("the file system has no snapshots that VIVER takes (btrfs has)")

// Snapshot is a system as it was at one moment.
type Snapshot struct {
	// Notes are for people: what of it is still live.
	Notes []string

	root   string // where it is mounted
	made   []made
	mounts *thread.Mounts
}

// made is a snapshot, locked until it is deleted.
type made struct {
	of   uint64 // the device number that the subvolume has
	path string
	lock *os.File
}

// Open takes snapshots of what is mounted at root, and of what is mounted below. dir is an
// empty directory of the caller's.
func Open(ctx context.Context, root, dir string) (*Snapshot, error) {
	if !isSubvolume(root) {
		return nil, ErrNone
	}
	s := &Snapshot{root: filepath.Join(dir, "root")}
	var err error
	s.mounts, err = thread.OpenMounts(dir, func() error {
		if err := os.Mkdir(s.root, 0o700); err != nil {
			return err
		}
		return s.mount(ctx, root)
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

// isSubvolume reports whether a directory is the top of a subvolume of a btrfs.
func isSubvolume(dir string) bool {
	const topInode = 256 // BTRFS_FIRST_FREE_OBJECTID
	var fs unix.Statfs_t
	var st unix.Stat_t
	return unix.Statfs(dir, &fs) == nil && fs.Type == unix.BTRFS_SUPER_MAGIC && unix.Stat(dir, &st) == nil && st.Ino == topInode
}

// mount has each place of the system in the snapshot, those above first.
func (s *Snapshot) mount(ctx context.Context, root string) error {
	list, err := mountinfo.List()
	if err != nil {
		return err
	}
	at, err := s.take(ctx, root)
	if err != nil {
		return err
	}
	if err := bind(at, s.root); err != nil {
		return err
	}
	for _, m := range list {
		place, err := filepath.Rel(root, m.Point)
		if err != nil || place == "." || strings.HasPrefix(place, "..") || !isShown(place, m) || strings.HasPrefix(s.root, m.Point+"/") {
			continue
		}
		from := m.Point
		if isSubvolume(from) {
			if at, err := s.take(ctx, from); err == nil {
				from = at
			} else {
				s.Notes = append(s.Notes, fmt.Sprintf("%s is read while it changes: %v", m.Point, err))
			}
		}
		// What cannot be mounted was covered by another, or its directory is younger than the snapshot.
		if err := bind(from, filepath.Join(s.root, place)); err != nil && !errors.Is(err, unix.ENOENT) {
			s.Notes = append(s.Notes, fmt.Sprintf("warning: %s is not in the image: %v", m.Point, err))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
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

// take makes a snapshot of a subvolume, in itself; one that is mounted twice has one.
func (s *Snapshot) take(ctx context.Context, subvolume string) (path string, err error) {
	var st unix.Stat_t
	if err := unix.Stat(subvolume, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: subvolume, Err: err}
	}
	if i := slices.IndexFunc(s.made, func(m made) bool { return m.of == st.Dev }); i >= 0 {
		return s.made[i].path, nil
	}
	deleteOld(ctx, subvolume)
	path = filepath.Join(subvolume, fmt.Sprintf("%s%d", Prefix, os.Getpid()))
	if _, err := hosttool.Output(ctx, nil, "btrfs", "subvolume", "snapshot", "-r", subvolume, path); err != nil {
		return "", fmt.Errorf("no snapshot of %s: %w", subvolume, err)
	}
	lock, err := locked(path)
	s.made = append(s.made, made{st.Dev, path, lock})
	return path, err
}

// locked locks a snapshot against deleteOld. The file is nil when somebody else has it.
func locked(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

// deleteOld deletes the snapshots that processes left which were killed. One that cannot be deleted
// takes space, and is tried again the next time.
func deleteOld(ctx context.Context, subvolume string) {
	list, _ := filepath.Glob(filepath.Join(subvolume, Prefix+"*")) // a pattern in its name finds none
	for _, path := range list {
		if !isSubvolume(path) {
			continue
		}
		if lock, err := locked(path); err == nil { // nobody reads it
			_ = deleteOne(ctx, made{path: path, lock: lock})
		}
	}
}

func deleteOne(ctx context.Context, m made) error {
	_, err := hosttool.Output(ctx, nil, "btrfs", "subvolume", "delete", m.path)
	if err != nil {
		err = fmt.Errorf("%w; remove it with: btrfs subvolume delete %s", err, m.path)
	}
	if m.lock == nil {
		return err
	}
	return errors.Join(err, m.lock.Close())
}

// delete deletes what was made, also when the build was interrupted.
func (s *Snapshot) delete() error {
	var errs []error
	for i := len(s.made) - 1; i >= 0; i-- {
		errs = append(errs, deleteOne(context.Background(), s.made[i]))
	}
	return errors.Join(errs...)
}
