package imagebuild

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"viver.lan/internal/durable"
	"viver.lan/internal/media"
)

// WriteMedium copies a medium to a block device or file, reads it back and
// compares. It returns what was written to, in words. A device in use is
// refused, and what is no removable stick without force.
func WriteMedium(ctx context.Context, iso, target string, force bool, progress Progress) (string, error) {
	if progress == nil {
		progress = func(string, int64, int64) {}
	}
	in, err := os.Open(iso)
	if err != nil {
		return "", fmt.Errorf("medium: %w", err)
	}
	defer in.Close()
	if label, err := media.ISOLabel(in); err != nil || label != media.Label {
		return "", fmt.Errorf("%s is not a VIVER medium: its volume label is %q, want %q", iso, label, media.Label)
	}
	size, err := in.Seek(0, io.SeekEnd)
	if err != nil {
		return "", err
	}
	w := mediumWriter{in: in, size: size, progress: progress}
	fi, err := os.Stat(target)
	isFile := errors.Is(err, os.ErrNotExist) || err == nil && fi.Mode().IsRegular()
	switch {
	case isFile && !amongDevices(target):
		return target, explainSpace(w.toFile(ctx, target), filepath.Dir(target))
	case err == nil && fi.Mode()&os.ModeDevice != 0 && fi.Mode()&os.ModeCharDevice == 0:
		return w.toDevice(ctx, target, fi, force)
	case err != nil && !isFile:
		return "", err
	}
	return "", fmt.Errorf("%s is %w: plug the stick in and see with lsblk what it is called, such as /dev/sdb; nothing was written", target, errNoDevice)
}

var errNoDevice = errors.New("not a block device")

// amongDevices reports whether a name lies where devices do: a file of that name
// is memory, and what the next stick would be called.
func amongDevices(target string) bool {
	dir, err := filepath.Abs(filepath.Dir(target))
	if err != nil {
		return false
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	return (dir == "/dev" || strings.HasPrefix(dir, "/dev/")) && dir != "/dev/shm" && !strings.HasPrefix(dir, "/dev/shm/")
}

type mediumWriter struct {
	in       *os.File
	size     int64
	progress Progress
}

func (w mediumWriter) toFile(ctx context.Context, target string) (err error) {
	out, err := durable.Create(target, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := w.copy(ctx, out.File); err != nil {
		return err
	}
	return out.Commit()
}

func (w mediumWriter) toDevice(ctx context.Context, target string, fi os.FileInfo, force bool) (string, error) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("%s: no device number", target)
	}
	d, err := readDevice("/sys", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	if err != nil {
		return "", fmt.Errorf("%s: %w", target, err)
	}
	list, err := inUse()
	if err != nil {
		return "", err
	}
	if err := d.mayWrite(list, w.size, force); err != nil {
		return "", fmt.Errorf("%s (%s) is not written to: %w", target, d, err)
	}
	// O_EXCL on a block device fails while anything in the kernel holds it.
	out, err := os.OpenFile(target, os.O_RDWR|syscall.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		err = fmt.Errorf("%s (%s) is not written to: the kernel uses it or a part of it: %w", target, d, err)
	}
	if err != nil {
		return "", err
	}
	err = w.copy(ctx, out)
	if err == nil {
		// The kernel learns of the new partitions; a busy device keeps the old
		// view until it is plugged in again.
		_ = unix.IoctlSetInt(int(out.Fd()), unix.BLKRRPART, 0)
	}
	return fmt.Sprintf("%s (%s)", target, d), errors.Join(err, out.Close())
}

// head is the part of a medium that makes it one: boot sectors, partition
// table, volume label.
const head = 1 << 20

// copy writes the medium to out and reads it back. Its head comes last, and
// whatever was there before goes first: what is broken off boots nothing and
// passes for nothing.
func (w mediumWriter) copy(ctx context.Context, out *os.File) error {
	first := min(w.size, head)
	if _, err := out.WriteAt(make([]byte, first), 0); err != nil {
		return err
	}
	rest := &steadyWriter{out, io.NewOffsetWriter(out, first), 0}
	if err := w.pass(ctx, "write", rest, io.NewSectionReader(w.in, first, w.size-first), first); err != nil {
		return err
	}
	if err := out.Sync(); err != nil {
		return err
	}
	if _, err := io.Copy(io.NewOffsetWriter(out, 0), io.NewSectionReader(w.in, 0, first)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := out.Sync(); err != nil {
		return err
	}
	// Forget the cached pages, so that the device itself is read.
	_ = unix.Fadvise(int(out.Fd()), 0, w.size, unix.FADV_DONTNEED)
	read := sha256.New()
	if err := w.pass(ctx, "read back", read, io.NewSectionReader(out, 0, w.size), 0); err != nil {
		return err
	}
	want := sha256.New()
	if _, err := io.Copy(want, io.NewSectionReader(w.in, 0, w.size)); err != nil {
		return err
	}
	if string(want.Sum(nil)) != string(read.Sum(nil)) {
		return fmt.Errorf("%s reads back other bytes than were written: the device is worn out or not as large as it says", out.Name())
	}
	return nil
}

// steadyWriter has what it wrote reach the device now and then: otherwise all
// of it would be on its way in memory, and the progress a lie.
type steadyWriter struct {
	file    *os.File
	at      io.Writer
	pending int
}

func (w *steadyWriter) Write(p []byte) (int, error) {
	n, err := w.at.Write(p)
	if w.pending += n; err == nil && w.pending >= 16<<20 {
		w.pending = 0
		err = w.file.Sync()
	}
	return n, err
}

// pass moves all that comes after the first done bytes of the medium.
func (w mediumWriter) pass(ctx context.Context, task string, to io.Writer, from io.Reader, done int64) error {
	buf := make([]byte, 4<<20)
	for done < w.size {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(from, buf[:min(int64(len(buf)), w.size-done)])
		if err != nil {
			return fmt.Errorf("%s: %w", task, err)
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return fmt.Errorf("%s: %w", task, err)
		}
		done += int64(n)
		w.progress(task, done, w.size)
	}
	return nil
}

// device is what sysfs knows about a whole disk or a partition.
type device struct {
	name      string
	numbers   []string // major:minor of the device and its partitions
	parts     []string // the partitions, with their sizes, for people
	partition bool
	size      int64
	removable bool
	usb       bool
	model     string
	holders   []string // what is stacked on it: device mapper, RAID
}

func (d device) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %d MiB", d.model, d.size>>20))
}

// readDevice reads /sys/dev/block/MAJOR:MINOR below the given root.
func readDevice(sys string, major, minor uint32) (device, error) {
	number := fmt.Sprintf("%d:%d", major, minor)
	dir, err := filepath.EvalSymlinks(filepath.Join(sys, "dev/block", number))
	if err != nil {
		return device{}, fmt.Errorf("no such block device in sysfs: %w", err)
	}
	word := func(name string) string {
		data, _ := os.ReadFile(filepath.Join(dir, name)) // absent means empty
		return strings.TrimSpace(string(data))
	}
	sectors, err := strconv.ParseInt(word("size"), 10, 64)
	if err != nil {
		return device{}, fmt.Errorf("size: %w", err)
	}
	d := device{
		name:      filepath.Base(dir),
		numbers:   []string{number},
		partition: word("partition") != "",
		size:      sectors * 512,
		// A hard disk in a USB case says that it is not removable, and may be
		// somebody's only copy of something.
		removable: word("removable") == "1",
		usb:       strings.Contains(dir, "/usb"),
		model:     strings.TrimSpace(word("device/vendor") + " " + word("device/model")),
	}
	holders, _ := filepath.Glob(filepath.Join(dir, "holders/*"))
	parts, _ := filepath.Glob(filepath.Join(dir, d.name+"*/partition"))
	for _, p := range parts {
		more, _ := filepath.Glob(filepath.Join(filepath.Dir(p), "holders/*"))
		holders = append(holders, more...)
		data, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "dev"))
		d.numbers = append(d.numbers, strings.TrimSpace(string(data)))
		data, _ = os.ReadFile(filepath.Join(filepath.Dir(p), "size"))
		n, _ := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64) // absent means empty
		d.parts = append(d.parts, fmt.Sprintf("%s %d MiB", filepath.Base(filepath.Dir(p)), n*512>>20))
	}
	for _, h := range holders {
		d.holders = append(d.holders, filepath.Base(h))
	}
	return d, nil
}

// inUse lists what this machine has mounted, and the devices that it swaps to as
// if they were mounted on "swap".
func inUse() ([]mount, error) {
	list, err := mounts()
	if err != nil {
		return nil, err
	}
	for i, m := range list {
		// Some file systems have numbers of their own, unlike their devices.
		if number := deviceNumber(m.source); number != "" {
			list[i].device = number
		}
	}
	swaps, err := os.ReadFile("/proc/swaps")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list swap: %w", err)
	}
	eachLine(swaps, func(line string) {
		if f := strings.Fields(line); len(f) > 0 {
			if number := deviceNumber(unescape(f[0])); number != "" {
				list = append(list, mount{device: number, point: swapPoint})
			}
		}
	})
	return list, nil
}

const swapPoint = "swap"

// deviceNumber returns a block device's numbers, "" when it is none.
func deviceNumber(name string) string {
	var st unix.Stat_t
	if !strings.HasPrefix(name, "/") || unix.Stat(name, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return ""
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
}

// mayWrite decides whether a medium of the given size may replace what is on
// the device.
func (d device) mayWrite(list []mount, size int64, force bool) error {
	for _, m := range list {
		switch {
		case !slices.Contains(d.numbers, m.device):
		case m.point == swapPoint:
			return errors.New("this machine swaps to it; swapoff first")
		default:
			return fmt.Errorf("it is mounted on %s; unmount it first", m.point)
		}
	}
	switch {
	case len(d.holders) > 0:
		return fmt.Errorf("it is in use by %s", strings.Join(d.holders, ", "))
	case d.partition:
		return errors.New("it is a partition; a medium takes the whole device")
	case d.size < size:
		return fmt.Errorf("it is too small: the medium has %d MiB", size>>20)
	case !d.removable && !force:
		return d.notAStick()
	}
	return nil
}

// notAStick says what is on a device that may be more than a stick.
func (d device) notAStick() error {
	what := "it is not removable, so it may be a disk of this machine"
	if d.usb {
		what = "it is a disk on USB and no stick, so somebody may need what is on it"
	}
	if len(d.parts) > 0 {
		what += ": " + strings.Join(d.parts, ", ")
	}
	return fmt.Errorf("%s; --yes writes to it all the same, and all of that is lost", what)
}
