package livesnapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"viver.lan/internal/hosttool"
	"viver.lan/internal/mountinfo"
)

// Prefix is what the names of snapshots of btrfs begin with, which are at the top of each subvolume.
const Prefix = ".viver-snapshot."

// isSubvolume reports whether a directory is the top of a subvolume of a btrfs.
func isSubvolume(dir string) bool {
	const topInode = 256 // BTRFS_FIRST_FREE_OBJECTID
	var fs unix.Statfs_t
	var st unix.Stat_t
	return unix.Statfs(dir, &fs) == nil && fs.Type == unix.BTRFS_SUPER_MAGIC && unix.Stat(dir, &st) == nil && st.Ino == topInode
}

// takeSubvolume makes a snapshot of a subvolume, in itself.
func (s *Snapshot) takeSubvolume(ctx context.Context, m mountinfo.Mount) (made, error) {
	deleteOld(ctx, m.Point)
	path := filepath.Join(m.Point, fmt.Sprintf("%s%d", Prefix, os.Getpid()))
	if _, err := hosttool.Output(ctx, nil, "btrfs", "subvolume", "snapshot", "-r", m.Point, path); err != nil {
		return made{}, err
	}
	lock, err := locked(path)
	return made{path: path, delete: func() error { return errors.Join(deleteSubvolume(path), lock.Close()) }}, err
}

// locked locks a snapshot against deleteOld.
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
		if ctx.Err() != nil || !isSubvolume(path) {
			continue
		}
		if lock, err := locked(path); err == nil { // nobody reads it
			_ = deleteSubvolume(path)
			_ = lock.Close() // it was only locked
		}
	}
}

// deleteSubvolume deletes a snapshot also when the build was interrupted.
func deleteSubvolume(path string) error {
	if _, err := hosttool.Output(context.Background(), nil, "btrfs", "subvolume", "delete", path); err != nil {
		return fmt.Errorf("%w; remove it with: btrfs subvolume delete %s", err, path)
	}
	return nil
}
