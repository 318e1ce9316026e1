// Package machine is the seam between the boot code and the operating system
// it runs on: mounts, kernel modules, the change of root, and a prefix in front
// of /sys, /proc and /dev.
//
// It is not an abstraction of operating systems and holds no decisions. Each
// package that needs an operation declares a small interface of its own, which
// Host satisfies on a real machine and machinetest.Host in tests. The one
// invariant: every path that a Host opens by name is looked up below its root,
// so a test that fakes /sys never reads the machine it runs on.
package machine

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Host is the machine this program runs on. The zero value is ready to use.
type Host struct {
	// Root is put before every absolute path; empty means "/".
	Root string
}

// Path returns where the absolute path name is found on this machine.
func (h Host) Path(name string) string {
	if h.Root == "" {
		return name
	}
	return filepath.Join(h.Root, name)
}

// Mount attaches a file system as mount(2) does. Source and target are taken
// as they are; only what this package opens itself is looked up below Root.
func (h Host) Mount(source, target, fstype string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		return &MountError{Source: source, Target: target, FSType: fstype, Err: err}
	}
	return nil
}

// Unmount detaches what is mounted at target, see umount2(2) for flags.
func (h Host) Unmount(target string, flags int) error {
	if err := unix.Unmount(target, flags); err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

// Space returns the free bytes of the file system that holds path, and its free
// inodes; a file system that makes inodes as it needs them has the largest
// number of them (statfs(2)).
func (h Host) Space(path string) (free int64, inodes uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, fmt.Errorf("free space of %s: %w", path, err)
	}
	inodes = st.Ffree
	if st.Files == 0 {
		inodes = math.MaxUint64
	}
	return int64(st.Bavail) * st.Bsize, inodes, nil
}

// InMemory reports whether the open directory lies on a file system that lives
// in memory only, as the initramfs does: what is deleted there is memory gained.
func (h Host) InMemory(dir *os.File) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return false, fmt.Errorf("file system of %s: %w", dir.Name(), err)
	}
	return st.Type == unix.RAMFS_MAGIC || st.Type == unix.TMPFS_MAGIC, nil
}

// SetReadOnly write-protects the block device called path (BLKROSET) and
// returns the function that sets it back to what it was. Some file systems
// repair themselves even when mounted read-only; a protected device cannot be
// written by any of them.
func (h Host) SetReadOnly(path string) (restore func() error, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	before, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET)
	if err != nil {
		return nil, fmt.Errorf("write-protect %s: %w", path, err)
	}
	if before != 0 {
		return func() error { return nil }, nil
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.BLKROSET, 1); err != nil {
		return nil, fmt.Errorf("write-protect %s: %w", path, err)
	}
	return func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.BLKROSET, 0); err != nil {
			return fmt.Errorf("lift the write protection of %s: %w", path, err)
		}
		return nil
	}, nil
}

// InsertModule hands the kernel module in the file called path to the kernel.
// A module that is already there is not an error.
func (h Host) InsertModule(path, params string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return inserted(unix.FinitModule(int(f.Fd()), params, 0))
}

// InsertModuleBytes does the same for a module that had to be unpacked first.
func (h Host) InsertModuleBytes(image []byte, params string) error {
	return inserted(unix.InitModule(image, params))
}

func inserted(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// Chdir changes the working directory of the whole process.
func (h Host) Chdir(dir string) error { return os.Chdir(dir) }

// Fchdir makes the directory behind the open file the working directory.
func (h Host) Fchdir(dir *os.File) error { return dir.Chdir() }

// Chroot changes the root directory of the whole process.
func (h Host) Chroot(dir string) error {
	if err := unix.Chroot(dir); err != nil {
		return fmt.Errorf("chroot %s: %w", dir, err)
	}
	return nil
}

// Exec replaces this program; it returns only when that failed.
func (h Host) Exec(path string, argv, env []string) error {
	// The syscall package, not x/sys: it restores the descriptor limit that
	// the Go runtime raised at start.
	return fmt.Errorf("exec %s: %w", path, syscall.Exec(path, argv, env))
}

// Reboot writes all dirty pages out and then restarts, halts or powers off the
// machine; cmd is one of the LINUX_REBOOT_CMD constants of reboot(2).
func (h Host) Reboot(cmd int) error {
	unix.Sync()
	if err := unix.Reboot(cmd); err != nil {
		return fmt.Errorf("reboot(%#x): %w", cmd, err)
	}
	return nil
}

// MountError says what could not be mounted, and in words what is missing
// where the kernel's bare error number would not tell.
type MountError struct {
	Source, Target, FSType string
	Err                    error
}

// Error implements error.
func (e *MountError) Error() string {
	what := e.Source
	if e.FSType != "" {
		what = e.FSType + " " + e.Source
	}
	s := fmt.Sprintf("mount %s on %s: %v", what, e.Target, e.Err)
	switch {
	case errors.Is(e.Err, unix.ENODEV):
		s += fmt.Sprintf(" (the kernel has no %s: its module is missing or could not be loaded)", e.FSType)
	case errors.Is(e.Err, unix.EINVAL) && e.FSType != "":
		s += fmt.Sprintf(" (not a sound %s, or an option this kernel does not know; the kernel log says which)", e.FSType)
	case errors.Is(e.Err, unix.EACCES), errors.Is(e.Err, unix.EROFS):
		s += " (the device is write-protected)"
	case errors.Is(e.Err, unix.EPERM):
		s += " (must be root)"
	}
	return s
}

// Unwrap returns the kernel's error number.
func (e *MountError) Unwrap() error { return e.Err }
