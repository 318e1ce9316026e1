package diskroot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"viver.lan/internal/loopdev"
)

// mountOptions are those with which a file system is read as it lies there: its journal is
// not replayed. What a stranger wrote into it decides nothing: an ext4 may say that an error in it
// is to stop the machine. Only what is in the map is mounted.
func mountOptions(fsType string) (kernelType, options string, ok bool) {
	switch fsType {
	case "ext2", "ext3", "ext4":
		return "ext4", "noload,errors=continue", true
	case "xfs":
		return "xfs", "norecovery,nouuid", true
	case "btrfs":
		return "btrfs", "rescue=nologreplay", true
	case "f2fs":
		return "f2fs", "norecovery", true
	case "jfs", "erofs", "squashfs", "vfat":
		return fsType, "", true
	}
	return "", "", false
}

// disk is what is mounted, with the block devices of its volumes.
type disk struct {
	loops map[stretch]*loopdev.Device
}

func newDisk() *disk { return &disk{make(map[stretch]*loopdev.Device)} }

// device returns the block device of a volume, the same for each of its mounts: of two that hold one
// btrfs, the kernel may refuse the second.
func (d *disk) device(v volume) (name string, err error) {
	loop, ok := d.loops[v.stretch]
	if !ok {
		if loop, err = loopdev.Open("/dev", "/proc/self/fd/"+strconv.Itoa(int(v.file.Fd())), v.offset, v.size); err != nil {
			return "", err
		}
		d.loops[v.stretch] = loop
	}
	return loop.Path, nil
}

// close lets go of the devices, which are there as long as they are mounted.
func (d *disk) close() error {
	var errs []error
	for _, loop := range d.loops {
		errs = append(errs, loop.Close())
	}
	return errors.Join(errs...)
}

// mount mounts a volume at a place, which is below top and may be a stranger's: no link
// on the way leads out. more are further options.
func (d *disk) mount(v volume, top, place, more string) error {
	kernelType, options, ok := mountOptions(v.fsType)
	if !ok {
		return fmt.Errorf("%s: it cannot be mounted here", v)
	}
	if more != "" {
		options += "," + more
	}
	if err := isWhole(v); err != nil {
		return fmt.Errorf("%s: %w", v, err)
	}
	target, err := openIn(top, place, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer target.Close()
	device, err := d.device(v)
	if err != nil {
		return err
	}
	const flags = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC
	if err := unix.Mount(device, "/proc/self/fd/"+strconv.Itoa(int(target.Fd())), kernelType, flags, options); err != nil {
		if errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("%s: the kernel of this machine has no %s", v, kernelType)
		}
		return fmt.Errorf("mount %s: %w", v, err)
	}
	return nil
}

// openIn opens what is below top, links seeing top as their root.
func openIn(top, place string, flags uint64) (*os.File, error) {
	dir, err := unix.Open(top, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: top, Err: err}
	}
	defer unix.Close(dir)
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	const tries = 32 // a directory that is renamed anywhere spoils one that goes by ".."
	for range tries {
		var fd int
		if fd, err = unix.Openat2(dir, place, &how); err == nil {
			return os.NewFile(uintptr(fd), filepath.Join(top, place)), nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return nil, &os.PathError{Op: "open", Path: "/" + place, Err: err}
}

// linux is the directory of a Linux, whose links see it as their root.
type linux string

// Open implements fs.FS, for regular files only: others could hold the reader up.
func (l linux) Open(name string) (fs.File, error) {
	f, err := openIn(string(l), name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(&fs.PathError{Op: "open", Path: "/" + name, Err: errors.New("not a regular file")}, err, f.Close())
	}
	return f, nil
}

// ReadFile implements fs.ReadFileFS, for the beginning of a file: a stranger's may have no end.
func (l linux) ReadFile(name string) ([]byte, error) {
	const most = 1 << 20
	f, err := l.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}
