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

// WriteOptions say what may be lost for a medium, and what is written beside it.
type WriteOptions struct {
	// Force writes to what is no removable stick.
	Force bool
	// Data is the size of a file system for saved data behind the medium, in bytes, or
	// RestOfStick; 0 for none. One that is there already is kept as it is.
	Data int64
	// EraseData does not keep it.
	EraseData bool
	// Progress is told how far a task has come, in bytes; it may be nil.
	Progress func(task string, done, total int64)
	// Note receives sentences for people; it may be nil.
	Note func(string)
}

// Write copies a medium to a block device or file, reads it back and
// compares. It returns what was written to, in words. A device in use is
// refused, and what is no removable stick without force.
func Write(ctx context.Context, iso, target string, o WriteOptions) (string, error) {
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if o.Note == nil {
		o.Note = func(string) {}
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
	w := writer{WriteOptions: o, in: in, size: size}
	fi, err := os.Stat(target)
	isFile := errors.Is(err, os.ErrNotExist) || err == nil && fi.Mode().IsRegular()
	switch {
	case isFile && !isInDev(target):
		return target, durable.ExplainSpace(w.writeFile(ctx, target), filepath.Dir(target))
	case err == nil && fi.Mode()&os.ModeDevice != 0 && fi.Mode()&os.ModeCharDevice == 0:
		return w.writeDevice(ctx, target, fi)
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
	WriteOptions
	in   *os.File
	size int64 // of the medium
}

func (w writer) writeFile(ctx context.Context, target string) (err error) {
	out, err := durable.Create(target, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	size, err := w.fileSize(target)
	if err != nil {
		return err
	}
	if err := out.Truncate(size); err != nil {
		return err
	}
	if err := w.writeAll(ctx, out.File, size); err != nil {
		return err
	}
	return out.Commit()
}

// fileSize is how large a file becomes: as large as the medium and its data need.
func (w writer) fileSize(target string) (int64, error) {
	switch old, err := os.Open(target); {
	case w.Data == RestOfStick:
		return 0, fmt.Errorf("%s is a file, which has no rest: give --data a size", target)
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return 0, err
	default:
		defer old.Close()
		fi, err := old.Stat()
		if err != nil {
			return 0, err
		}
		if _, found := findData(old, fi.Size()); found && !w.EraseData {
			return 0, fmt.Errorf("%s has saved data: a file is replaced as a whole, so name another one, or give --erase-data", target)
		}
	}
	if w.Data == 0 {
		return w.size, nil
	}
	return (w.size+mib-1)/mib*mib + w.Data/mib*mib + tableRoom, nil
}

// writeAll writes the medium and what comes behind it to a stick or file of so many bytes.
func (w writer) writeAll(ctx context.Context, out *os.File, size int64) error {
	p, err := planData(out, size, w.size, w.Data, w.EraseData)
	if err != nil {
		return err
	}
	if err := p.tools(); err != nil {
		return err
	}
	if text := p.String(); text != "" {
		w.Note(text)
	}
	if err := p.forget(out, size); err != nil {
		return err
	}
	if err := w.writeAndVerify(ctx, out); err != nil {
		return err
	}
	if err := p.write(ctx, out.Name(), size); err != nil {
		return fmt.Errorf("saved data: %w; the medium is written, and without it boots as any other", err)
	}
	return nil
}

func (w writer) writeDevice(ctx context.Context, target string, fi os.FileInfo) (string, error) {
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
	if err := d.mayWrite(list, w.size, w.Force); err != nil {
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
	err = w.writeAll(ctx, out, d.size)
	if err != nil {
		err = fmt.Errorf("%s (%s): %w", target, d, err)
	} else {
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
		w.Progress(task, done, w.size)
	}
	return nil
}
