// Package layers puts a node's root together: the image's squashfs below,
// something writable above, and the overlay that shows both as one.
//
// It decides nothing about where the block device or the saved data come from.
// The invariant: either the whole root is mounted when Assemble returns, or
// nothing of it is; and a saved-data layer that cannot be used is a warning and never
// ends the boot, because memory replaces it.
package layers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// OS is what this package needs of the machine.
type OS interface {
	Mount(source, target, fstype string, flags uintptr, data string) error
	Unmount(target string, flags int) error
}

// DefaultSize is how much of the memory the writable layer may fill.
const DefaultSize = "50%"

// Config says what to build the root from.
type Config struct {
	// Device holds the squashfs, e.g. /dev/nbd0.
	Device string
	// Dir is where the parts are mounted: lower and, in memory, rw. It should
	// be below /run, which moves into the new root as a whole, so that the
	// parts stay visible to operators and to the unmounts at shutdown.
	Dir string
	// Target is where the root appears.
	Target string
	// Size bounds a writable layer in memory, as tmpfs(5) writes it: bytes
	// with k, m, g, or a percentage of the memory. Empty means DefaultSize.
	Size string
	// Upper and Work are directories on a saved-data disk; empty: memory.
	Upper, Work string
}

// Root is an assembled root.
type Root struct {
	// Lower is where the image alone can be read.
	Lower string
	// InMemory: what is written is gone when the machine goes down.
	InMemory bool
	// Note says why memory is used although a disk was offered.
	Note string

	target   string // where it is mounted
	writable string // the directory that has the writable layer in it
}

// Assemble mounts the root at c.Target.
func Assemble(m OS, c Config) (_ *Root, err error) {
	if c.Size == "" {
		c.Size = DefaultSize
	}
	if err := CheckSize(c.Size); err != nil {
		return nil, fmt.Errorf("assemble the root: %w", err)
	}
	if (c.Upper == "") != (c.Work == "") {
		return nil, errors.New("assemble the root: a saved-data layer needs both an upper and a work directory")
	}
	s := &stack{os: m}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("assemble the root: %w", err), s.unwind())
		}
	}()
	root := &Root{Lower: filepath.Join(c.Dir, "lower"), target: c.Target, writable: filepath.Dir(c.Upper)}
	if _, err := os.Stat(c.Device); err != nil {
		return nil, fmt.Errorf("%w: the root disk is not attached", err)
	}
	// The image may hold device nodes and set-user-ID programs; whether they
	// work is decided where the overlay is mounted, not here.
	if err := s.mount(c.Device, root.Lower, "squashfs", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, ""); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Target, 0o755); err != nil {
		return nil, err
	}
	if c.Upper != "" {
		if err = overlay(s, c.Target, root.Lower, c.Upper, c.Work); err == nil {
			return root, nil
		}
		root.Note = fmt.Sprintf("saved data in %s is not used: %v", c.Upper, err)
	}
	root.InMemory = true
	rw := filepath.Join(c.Dir, "rw")
	root.writable = rw
	data := "mode=0755,size=" + c.Size
	if err := s.mount("viver-rw", rw, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, data); err != nil {
		return nil, err
	}
	upper, work := filepath.Join(rw, "upper"), filepath.Join(rw, "work")
	for _, dir := range []string{upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := overlay(s, c.Target, root.Lower, upper, work); err != nil {
		return nil, err
	}
	return root, nil
}

func overlay(s *stack, target, lower, upper, work string) error {
	for _, path := range []string{lower, upper, work} {
		if strings.ContainsAny(path, ":,\\") {
			return fmt.Errorf("%q has a character with a meaning in overlay's options", path)
		}
	}
	return s.mount("viver-root", target, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, work))
}

// stack remembers what was mounted.
type stack struct {
	os      OS
	targets []string
}

func (s *stack) mount(source, target, fstype string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := s.os.Mount(source, target, fstype, flags, data); err != nil {
		return err
	}
	s.targets = append(s.targets, target)
	return nil
}

func (s *stack) unwind() error {
	var errs []error
	for len(s.targets) > 0 {
		last := len(s.targets) - 1
		errs = append(errs, s.os.Unmount(s.targets[last], 0))
		s.targets = s.targets[:last]
	}
	return errors.Join(errs...)
}

var sizePattern = regexp.MustCompile(`^(100|[1-9][0-9]?)%$|^[1-9][0-9]{0,15}[kKmMgG]?$`)

// CheckSize reports whether s is a size that tmpfs understands. The kernel
// would take some wrong ones for "unbounded".
func CheckSize(s string) error {
	if !sizePattern.MatchString(s) {
		return fmt.Errorf("size %q of the writable layer: want 1%% to 100%% of the memory, or a number of bytes with k, m or g", s)
	}
	return nil
}
