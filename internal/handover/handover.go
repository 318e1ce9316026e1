// Package handover ends VIVER's own boot and begins the distribution's: it
// checks that the new root has an init that can run, moves the kernel's file
// systems into it, gives the memory of the initramfs back, and becomes that
// init.
//
// The block daemon stays behind in a mount namespace of its own whose root is
// the initramfs. So the files it needs are kept, and directories are never
// removed at all: removing one detaches whatever any other namespace has
// mounted on it, and the machine hangs on its own root disk. The invariant:
// when Run returns, it failed, and the process sees the initramfs as before, so
// that a rescue shell can start.
package handover

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// OS is what this package needs of the machine.
type OS interface {
	Mount(source, target, fstype string, flags uintptr, data string) error
	Unmount(target string, flags int) error
	InMemory(dir *os.File) (bool, error)
	Chdir(dir string) error
	Fchdir(dir *os.File) error
	Chroot(dir string) error
	Exec(path string, argv, env []string) error
}

// Config says what to hand over to.
type Config struct {
	// Old is the initramfs, empty for "/"; tests set it.
	Old string
	// Root is where the new root is mounted.
	Root string
	// Init is the path from init= on the kernel command line; empty tries the
	// usual ones.
	Init string
	// Args follow argv[0], e.g. "single".
	Args []string
	// Env for the init. HOME, PATH and TERM are added when missing.
	Env []string
	// Move are the mounts that go with the machine; empty means Mounts.
	Move []string
	// Detach are mounts of the initramfs that only our own boot needed in this
	// namespace, such as the medium's. One that cannot be is logged.
	Detach []string
	// Keep are the top-level names of the initramfs whose files stay; empty
	// means World.
	Keep []string
	// Log may be nil.
	Log *slog.Logger
}

// Mounts are the mounts that every init expects to find.
func Mounts() []string { return []string{"/dev", "/proc", "/sys", "/run"} }

// World is what the block daemon and the supervisor need.
func World() []string {
	return []string{"bbin", "bin", "sbin", "etc", "init", "dev", "proc", "sys", "run", "tmp", "var"}
}

// Run hands the machine over. It returns only when that failed.
func Run(m OS, c Config) error {
	if c.Old == "" {
		c.Old = "/"
	}
	if len(c.Move) == 0 {
		c.Move = Mounts()
	}
	if len(c.Keep) == 0 {
		c.Keep = World()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	path, err := FindInit(c.Root, c.Init)
	if err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	h := &handover{os: m, c: c}
	if err := h.open(); err != nil {
		return fmt.Errorf("hand over: %w", err)
	}
	defer h.close()
	for _, dir := range c.Detach {
		if err := m.Unmount(dir, unix.MNT_DETACH); err != nil {
			c.Log.Warn("left mounted in the initramfs", "error", err)
		}
	}
	if err = h.enter(); err == nil {
		h.free()
		err = m.Exec(path, append([]string{path}, c.Args...), Environment(c.Env))
	}
	return fmt.Errorf("hand over: %w", errors.Join(err, h.undo()))
}

type handover struct {
	os    OS
	c     Config
	files *os.Root // the initramfs, whatever "/" is by now
	old   *os.File // the same
	new   *os.File // the new root

	moved   []string // mounts that are in the new root already
	on      bool     // the new root is mounted on "/"
	entered bool     // "/" is the new root
}

func (h *handover) open() (err error) {
	if h.files, err = os.OpenRoot(h.c.Old); err != nil {
		return err
	}
	if h.old, err = os.Open(h.c.Old); err == nil {
		h.new, err = os.Open(h.c.Root)
	}
	if err != nil {
		h.close()
	}
	return err
}

func (h *handover) close() {
	h.files.Close()
	for _, f := range []*os.File{h.old, h.new} {
		if f != nil {
			f.Close()
		}
	}
}

// enter moves the mounts and then the process into the new root.
func (h *handover) enter() error {
	for _, dir := range h.c.Move {
		target := filepath.Join(h.c.Root, dir)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := h.os.Mount(dir, target, "", unix.MS_MOVE, ""); err != nil {
			return err
		}
		h.moved = append(h.moved, dir)
	}
	// The way of switch_root(8): the rootfs itself cannot be unmounted or
	// pivoted away, so the new root is moved on top of it.
	if err := h.os.Chdir(h.c.Root); err != nil {
		return err
	}
	if err := h.os.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	h.on = true
	if err := h.os.Chroot("."); err != nil {
		return err
	}
	h.entered = true
	return h.os.Chdir("/")
}

// undo makes the initramfs the root again, with its mounts where they were.
// Names that begin with no slash are taken from the new root, where the working
// directory is; by path it cannot be reached from here.
func (h *handover) undo() error {
	var errs []error
	if h.entered {
		errs = append(errs, h.os.Fchdir(h.old), h.os.Chroot("."))
	}
	errs = append(errs, h.os.Fchdir(h.new))
	for _, dir := range slices.Backward(h.moved) {
		errs = append(errs, h.os.Mount(strings.TrimPrefix(dir, "/"), dir, "", unix.MS_MOVE, ""))
	}
	if h.on {
		errs = append(errs, h.os.Mount(".", h.c.Root, "", unix.MS_MOVE, ""))
	}
	return errors.Join(append(errs, h.os.Chdir("/"))...)
}

// free deletes the files of the initramfs but those of the daemons' world. What
// cannot be deleted costs memory and nothing else.
func (h *handover) free() {
	if inMemory, err := h.os.InMemory(h.old); err != nil || !inMemory {
		h.c.Log.Info("initramfs not freed: it does not live in memory", "error", err)
		return
	}
	freed, err := free(h.files, h.c.Keep)
	h.c.Log.Info("initramfs freed", "bytes", freed, "error", err)
}

// free deletes files and links of root's own file system, except below the
// top-level names in keep, and returns the bytes gained.
func free(root *os.Root, keep []string) (bytes int64, err error) {
	top, err := root.Stat(".")
	if err != nil {
		return 0, err
	}
	f := freeing{device: deviceOf(top)}
	f.empty(root, keep)
	return f.bytes, errors.Join(f.errs...)
}

func deviceOf(info fs.FileInfo) uint64 { return uint64(info.Sys().(*syscall.Stat_t).Dev) }

// freeing is what free has done.
type freeing struct {
	device uint64
	bytes  int64
	errs   []error
}

// empty deletes what is in dir and below, except names in keep. It opens each directory
// once: a path below root would be looked up name by name for each of its files.
func (f *freeing) empty(dir *os.Root, keep []string) {
	entries, err := fs.ReadDir(dir.FS(), ".")
	if err != nil {
		f.errs = append(f.errs, err)
	}
	for _, entry := range entries {
		if slices.Contains(keep, entry.Name()) {
			continue
		}
		if err := f.remove(dir, entry.Name()); err != nil {
			f.errs = append(f.errs, err)
		}
	}
}

func (f *freeing) remove(dir *os.Root, name string) error {
	info, err := dir.Lstat(name)
	switch {
	case err != nil:
		return err
	case deviceOf(info) != f.device:
		return nil // something is mounted here, and it is not ours to empty
	case info.IsDir(): // stays, see the package comment
		below, err := dir.OpenRoot(name)
		if err != nil {
			return err
		}
		defer below.Close()
		f.empty(below, nil)
		return nil
	}
	if err := dir.Remove(name); err != nil {
		return err
	}
	if info.Mode().IsRegular() {
		f.bytes += info.Size()
	}
	return nil
}

// Environment adds to env what an init gets from the kernel. It does not set
// "container": an init would then not manage the hardware.
func Environment(env []string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(e string) bool { return strings.HasPrefix(e, "container=") })
	for _, e := range []string{"HOME=/", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=linux"} {
		name, _, _ := strings.Cut(e, "=")
		if !slices.ContainsFunc(env, func(have string) bool { return strings.HasPrefix(have, name+"=") }) {
			env = append(env, e)
		}
	}
	return env
}

// Spare asks sysvinit, by the only way that it has, not to kill these processes
// at shutdown. run is the /run that the distribution sees. Call it again when a
// process was replaced.
func Spare(run string, pids ...int) error {
	dir := filepath.Join(run, "sendsigs.omit.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("spare processes at shutdown: %w", err)
	}
	var text strings.Builder
	for _, pid := range pids {
		text.WriteString(strconv.Itoa(pid) + "\n")
	}
	// A shell loop reads every file in this directory, so the unfinished one has to be
	// elsewhere.
	file, unfinished := filepath.Join(dir, "viver"), filepath.Join(run, ".viver-sendsigs")
	if err := os.WriteFile(unfinished, []byte(text.String()), 0o644); err != nil {
		return fmt.Errorf("spare processes at shutdown: %w", err)
	}
	if err := os.Rename(unfinished, file); err != nil {
		return fmt.Errorf("spare processes at shutdown: %w", err)
	}
	return nil
}
