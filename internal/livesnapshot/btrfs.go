package livesnapshot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"viver.lan/internal/mountinfo"
)

// Prefix is what the names of the directories begin with that snapshots of btrfs lie in, at the top of
// each subvolume.
const Prefix = ".viver-snapshot."

// Inside is what a snapshot is called in such a directory. No other program's is.
const Inside = "viver-snapshot"

// topInode is that of the top of every subvolume.
const topInode = 256 // BTRFS_FIRST_FREE_OBJECTID

// isSubvolume reports whether a directory is the top of a subvolume of a btrfs.
func isSubvolume(dir string) bool {
	var fs unix.Statfs_t
	var st unix.Stat_t
	return unix.Statfs(dir, &fs) == nil && fs.Type == unix.BTRFS_SUPER_MAGIC && unix.Stat(dir, &st) == nil && st.Ino == topInode
}

// box is the directory that a snapshot lies in. The top of a subvolume may be anybody's, who can
// rename there what root makes and put a link in its place. So a box is a directory that root alone can write
// to, and it is told by an open file, never by its path.
type box struct {
	top, dir *os.File
	name     string
}

// newBox makes a box, and locks it against deleteOld. Its name is one that nobody can have taken before.
func newBox(top *os.File) (*box, error) {
	name := Prefix + rand.Text()
	if err := unix.Mkdirat(int(top.Fd()), name, 0o700); err != nil {
		return nil, &os.PathError{Op: "mkdir", Path: filepath.Join(top.Name(), name), Err: err}
	}
	return openBox(top, name)
}

// openBox opens and locks a box, if it is one and nobody has it locked.
func openBox(top *os.File, name string) (*box, error) {
	path := filepath.Join(top.Name(), name)
	dir, err := openDir(int(top.Fd()), name, path)
	if err != nil {
		return nil, err
	}
	var st, topSt unix.Stat_t
	err = errors.Join(unix.Fstat(int(dir.Fd()), &st), unix.Fstat(int(top.Fd()), &topSt))
	if err == nil && (st.Uid != 0 || st.Mode&0o777 != 0o700 || st.Dev != topSt.Dev) {
		err = errors.New("not a directory that only root can write to; somebody else made it")
	}
	if err == nil {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), dir.Close())
	}
	return &box{top, dir, name}, nil
}

// openDir opens a directory, no link to one.
func openDir(at int, name, path string) (*os.File, error) {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// snapshot takes one of the subvolume. The box is in it, too, empty, and is no part of the system; so it
// becomes read-only behind that.
func (b *box) snapshot() error {
	if err := control(b.dir, snapCreate, unsafe.Pointer(arguments(int64(b.top.Fd())))); err != nil {
		return fmt.Errorf("btrfs: %w", err)
	}
	files, err := openDir(int(b.dir.Fd()), Inside, b.path())
	if err != nil {
		return err
	}
	err = unix.Unlinkat(int(files.Fd()), b.name, unix.AT_REMOVEDIR)
	if errors.Is(err, unix.ENOENT) { // somebody renamed it
		err = nil
	}
	readOnly := uint64(1 << 1) // BTRFS_SUBVOL_RDONLY
	return errors.Join(err, control(files, subvolSetFlags, unsafe.Pointer(&readOnly)), files.Close())
}

// path is where the snapshot lies, for this process, also when somebody renames its box.
func (b *box) path() string {
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(b.dir.Fd())), Inside)
}

// delete deletes the snapshot, if there is one, and its box.
func (b *box) delete() error {
	err := control(b.dir, snapDestroy, unsafe.Pointer(arguments(0)))
	if err == nil || errors.Is(err, unix.ENOENT) {
		err = unix.Unlinkat(int(b.top.Fd()), b.name, unix.AT_REMOVEDIR)
	}
	if errors.Is(err, unix.ENOENT) { // somebody renamed it; it is empty
		err = nil
	}
	if err != nil {
		path := filepath.Join(b.top.Name(), b.name)
		err = fmt.Errorf("delete the snapshot in %[1]s: %[2]w; remove it with: btrfs subvolume delete %[1]s/%[3]s && rmdir %[1]s", path, err, Inside)
	}
	return errors.Join(err, b.dir.Close())
}

// The numbers of ioctls in linux/btrfs.h.
const (
	snapCreate     = 0x50009401 // BTRFS_IOC_SNAP_CREATE
	snapDestroy    = 0x5000940f // BTRFS_IOC_SNAP_DESTROY
	subvolSetFlags = 0x4008941a // BTRFS_IOC_SUBVOL_SETFLAGS
)

// volArgs is struct btrfs_ioctl_vol_args.
type volArgs struct {
	fd   int64
	name [4088]byte
}

// arguments are those about a snapshot in a box, of what fd is.
func arguments(fd int64) *volArgs {
	args := &volArgs{fd: fd}
	copy(args.name[:], Inside)
	return args
}

func control(f *os.File, request uintptr, argument unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

// takeSubvolume makes a snapshot of a subvolume, in itself. The program btrfs would find by a path
// what it makes and deletes, and whoever can write there could change that meanwhile.
func (s *Snapshot) takeSubvolume(ctx context.Context, m mountinfo.Mount) (made, error) {
	top, err := openDir(unix.AT_FDCWD, m.Point, m.Point)
	if err != nil {
		return made{}, err
	}
	deleteOld(ctx, top)
	if err := ctx.Err(); err != nil {
		return made{}, errors.Join(err, top.Close())
	}
	b, err := newBox(top)
	if err != nil {
		return made{}, errors.Join(err, top.Close())
	}
	err = b.snapshot()
	return made{path: b.path(), delete: func() error { return errors.Join(b.delete(), top.Close()) }}, err
}

// deleteOld deletes the snapshots that processes left which were killed. One that cannot be deleted
// takes space, and is tried again the next time.
func deleteOld(ctx context.Context, top *os.File) {
	names, _ := top.Readdirnames(-1) // what is not read now is tried the next time, too
	for _, name := range names {
		if ctx.Err() != nil || !strings.HasPrefix(name, Prefix) {
			continue
		}
		if b, err := openBox(top, name); err == nil { // nobody reads it
			_ = b.delete()
		}
	}
}
