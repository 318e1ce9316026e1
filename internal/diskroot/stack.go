package diskroot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"viver.lan/internal/hosttool"
)

// Options say what of a disk to open, and how.
type Options struct {
	// Root chooses one of several installed Linuxes: the number of a partition or the name of a logical volume, with the
	// subvolume of a btrfs, such as 2, 2:@ or lab/root; "" when there is one only.
	Root string
	// Passphrase opens what is encrypted with LUKS; nil for none.
	Passphrase []byte
}

// tool runs a program of this machine, as hosttool.Output does. It is where tests look at the command lines.
type tool func(ctx context.Context, files []*os.File, name string, args ...string) ([]byte, error)

// stack opens what file systems lie in: LUKS, LVM, software RAID, in whatever order.
//
// No device of this machine shows a member of a RAID or a physical volume of LVM: udev would have it
// activated, and it may be a copy of one in use here. mdadm and LVM see copies of the headers, which name the place of
// the data. What is no stretch of a disk, as what is encrypted, becomes a device of the device mapper that
// goes when nobody uses it any more, also when this process is killed.
type stack struct {
	run        tool
	passphrase []byte
	disk       *disk
	volumes    []volume
	// failures are why which volumes could not be opened.
	failures []error
	notes    []string
	opened   []mapped
}

// maxLayers is more than anybody has on one another, such as RAID, LUKS and LVM.
const maxLayers = 5

// unstack adds to a list of volumes those that lie in them. What is not whole is a failure, no error.
func (s *stack) unstack(ctx context.Context, volumes []volume) error {
	s.volumes = volumes
	locked := slices.ContainsFunc(volumes, volume.isEncrypted)
	seen := 0
	for range maxLayers {
		fresh := slices.Clone(s.volumes[seen:])
		seen = len(s.volumes)
		more := append(s.mirrors(ctx, fresh), s.decrypted(ctx, fresh)...)
		more = append(more, s.logical(ctx)...)
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, v := range more {
			if err := v.probe(ctx, v.file); err != nil {
				return err
			}
			locked = locked || v.isEncrypted()
			s.volumes = append(s.volumes, v)
		}
		if len(more) == 0 {
			break
		}
	}
	if len(s.passphrase) > 0 && !locked {
		return errors.New("--passphrase-file: nothing on it is encrypted with LUKS")
	}
	return s.wrongPassphrase()
}

// knows reports whether a volume of that name was made already.
func (s *stack) knows(v volume) bool {
	return slices.ContainsFunc(s.volumes, func(known volume) bool { return known.name == v.name && v.name != "" })
}

// headers copies the beginning and the end of a volume into memory, as a file of its size. Tools read
// it in place of the volume by the name that it has.
func headers(v volume) (f *os.File, name string, err error) {
	const first, last = 8 << 20, 256 << 10 // superblocks of md and the metadata of LVM are there
	if f, err = inMemory(v.size); err != nil {
		return nil, "", err
	}
	copyTo := func(at, size int64) error {
		_, err := io.Copy(io.NewOffsetWriter(f, at), io.NewSectionReader(v.file, v.offset+at, size))
		return err
	}
	err = copyTo(0, min(first, v.size))
	if err == nil && v.size > first {
		err = copyTo(max(first, v.size-last), min(last, v.size-first))
	}
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("%s: %w", v, err), f.Close())
	}
	return f, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()), nil // LVM closes those that it inherits
}

// inMemory makes a file of a size, with no name.
func inMemory(size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("viver", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("a file in memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "viver")
	if err := f.Truncate(size); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// inMemoryOf makes such a file of data.
func inMemoryOf(data []byte) (*os.File, error) {
	f, err := inMemory(0)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// mapped is a device of the device mapper that we have made.
type mapped struct {
	name string
	file *os.File
}

// mapping names the next such device.
func (s *stack) mapping() string { return fmt.Sprintf("viver-%d-%d", os.Getpid(), len(s.opened)) }

// opens opens a device that was just made, and has it removed when nobody uses it any more.
func (s *stack) opens(ctx context.Context, name string) (*os.File, error) {
	f, err := os.Open("/dev/mapper/" + name)
	_, removed := s.run(context.WithoutCancel(ctx), nil, "dmsetup", "remove", "--deferred", name)
	if err = errors.Join(err, removed); err != nil {
		return nil, fmt.Errorf("%w; see with dmsetup ls whether %[2]s is left, and remove it: dmsetup remove %[2]s", err, name)
	}
	s.opened = append(s.opened, mapped{name, f})
	return f, nil
}

// close lets go of the devices, which are there as long as something of them is mounted. A device on one
// of ours was made by somebody who saw it come, such as udev's rules for LVM, and would keep it.
func (s *stack) close() error {
	var errs []error
	for _, m := range slices.Backward(s.opened) {
		for _, holder := range holders(m.file) {
			_, err := s.run(context.Background(), nil, "dmsetup", "remove", "--deferred", "--", holder) // its name may be a stranger's
			errs = append(errs, err)
		}
		errs = append(errs, m.file.Close())
	}
	return errors.Join(errs...)
}

// explainTool says what to install.
func explainTool(err error, program, pkg string) error {
	if _, missing := hosttool.Find(program); missing != nil {
		return fmt.Errorf("%w: install it (Debian: %s)", missing, pkg)
	}
	return err
}
