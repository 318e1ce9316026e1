package bootmedium

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"viver.lan/internal/durable"
	"viver.lan/internal/media"
)

// Write copies a medium to a block device or file, reads it back and
// compares. It returns what was written to, in words. A device in use is
// refused, and what is no removable stick without force.
func Write(ctx context.Context, iso, target string, force bool, progress func(task string, done, total int64)) (string, error) {
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
	w := writer{in: in, size: size, progress: progress}
	fi, err := os.Stat(target)
	isFile := errors.Is(err, os.ErrNotExist) || err == nil && fi.Mode().IsRegular()
	switch {
	case isFile && !isInDev(target):
		return target, durable.ExplainSpace(w.writeFile(ctx, target), filepath.Dir(target))
	case err == nil && fi.Mode()&os.ModeDevice != 0 && fi.Mode()&os.ModeCharDevice == 0:
		return w.writeDevice(ctx, target, fi, force)
	case err != nil && !isFile:
		return "", err
	}
	return "", fmt.Errorf("%s is %w: plug the stick in and see with lsblk what it is called, such as /dev/sdb; nothing was written", target, errNoDevice)
}

var errNoDevice = errors.New("not a block device")

// isInDev reports whether a name is one of a device: a file of that name would be
// in memory, and in the way of the next stick.
func isInDev(target string) bool {
	dir, err := filepath.Abs(filepath.Dir(target))
	if err != nil {
		return false
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	return (dir == "/dev" || strings.HasPrefix(dir, "/dev/")) && dir != "/dev/shm" && !strings.HasPrefix(dir, "/dev/shm/")
}

type writer struct {
	in       *os.File
	size     int64
	progress func(task string, done, total int64)
}

func (w writer) writeFile(ctx context.Context, target string) (err error) {
	out, err := durable.Create(target, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := w.writeAndVerify(ctx, out.File); err != nil {
		return err
	}
	return out.Commit()
}

func (w writer) writeDevice(ctx context.Context, target string, fi os.FileInfo, force bool) (string, error) {
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
	err = w.writeAndVerify(ctx, out)
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

// writeAndVerify writes the medium to out and reads it back. The head is cleared
// first and written last: an interrupted write leaves a stick that boots nothing
// and is taken for no medium.
func (w writer) writeAndVerify(ctx context.Context, out *os.File) error {
	first := min(w.size, head)
	if _, err := out.WriteAt(make([]byte, first), 0); err != nil {
		return err
	}
	rest := &syncWriter{out, io.NewOffsetWriter(out, first), 0}
	if err := w.transfer(ctx, "write", rest, io.NewSectionReader(w.in, first, w.size-first), first); err != nil {
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
	if err := w.transfer(ctx, "read back", read, io.NewSectionReader(out, 0, w.size), 0); err != nil {
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

// syncWriter waits for the device now and then: otherwise the progress would be
// that of the page cache.
type syncWriter struct {
	file    *os.File
	at      io.Writer
	pending int
}

func (w *syncWriter) Write(p []byte) (int, error) {
	n, err := w.at.Write(p)
	if w.pending += n; err == nil && w.pending >= 16<<20 {
		w.pending = 0
		err = w.file.Sync()
	}
	return n, err
}

// transfer moves all that comes after the first done bytes of the medium.
func (w writer) transfer(ctx context.Context, task string, to io.Writer, from io.Reader, done int64) error {
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
