package imagebuild

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"viver.lan/internal/durable"
	"viver.lan/internal/media"
)

// WriteMedium copies a medium to a block device or file, reads it back and
// compares. It returns what was written to, in words. A device in use is
// refused, one that is not removable only without force.
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
	if err != nil || fi.Mode().IsRegular() {
		return target, explainSpace(w.toFile(ctx, target), filepath.Dir(target))
	}
	if fi.Mode()&os.ModeDevice == 0 || fi.Mode()&os.ModeCharDevice != 0 {
		return "", fmt.Errorf("%s is neither a file nor a block device", target)
	}
	return w.toDevice(ctx, target, fi, force)
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
	list, err := mounts()
	if err != nil {
		return "", err
	}
	if err := d.mayWrite(list, w.size, force); err != nil {
		return "", fmt.Errorf("%s (%s) is not written to: %w", target, d, err)
	}
	// O_EXCL on a block device fails while anything in the kernel holds it.
	out, err := os.OpenFile(target, os.O_RDWR|syscall.O_EXCL, 0)
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
	partition bool
	size      int64
	removable bool
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
		// A hard disk in a USB case says that it is not removable; the bus
		// says that it is no part of this machine.
		removable: word("removable") == "1" || strings.Contains(dir, "/usb"),
		model:     strings.TrimSpace(word("device/vendor") + " " + word("device/model")),
	}
	holders, _ := filepath.Glob(filepath.Join(dir, "holders/*"))
	parts, _ := filepath.Glob(filepath.Join(dir, d.name+"*/partition"))
	for _, p := range parts {
		more, _ := filepath.Glob(filepath.Join(filepath.Dir(p), "holders/*"))
		holders = append(holders, more...)
		data, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "dev"))
		d.numbers = append(d.numbers, strings.TrimSpace(string(data)))
	}
	for _, h := range holders {
		d.holders = append(d.holders, filepath.Base(h))
	}
	return d, nil
}

// mayWrite decides whether a medium of the given size may replace what is on
// the device.
func (d device) mayWrite(list []mount, size int64, force bool) error {
	for _, m := range list {
		for _, number := range d.numbers {
			if m.device == number {
				return fmt.Errorf("it is mounted on %s; unmount it first", m.point)
			}
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
		return errors.New("it is not removable, so it may be a disk of this machine; --yes writes to it all the same")
	}
	return nil
}
