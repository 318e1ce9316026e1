package bootmedium

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
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
	// Force writes to what is no removable stick, and asks nothing.
	Force bool
	// Confirm asks whether what is on a stick may be lost, which it is told. Without it
	// nothing may that is not a medium of ours.
	Confirm func(question string) (bool, error)
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
	w := writer{WriteOptions: o, size: size, fill: func(_ context.Context, w io.Writer) error {
		_, err := io.Copy(w, io.NewSectionReader(in, 0, size))
		return err
	}}
	return w.write(ctx, target)
}

// WriteImages makes a medium and writes it in one pass, as Write does. The marker is the
// medium's; c.Output is not used.
func WriteImages(ctx context.Context, c Config, target string, o WriteOptions) (where string, marker media.Marker, err error) {
	w := writer{WriteOptions: o, prepare: func(w *writer) error {
		m, err := c.prepare(ctx)
		if err == nil {
			marker, w.size, w.fill = m.marker, m.size(), m.writeTo
		}
		return err
	}}
	where, err = w.write(ctx, target)
	return where, marker, err
}

func (w writer) write(ctx context.Context, target string) (string, error) {
	if w.Progress == nil {
		w.Progress = func(string, int64, int64) {}
	}
	if w.Note == nil {
		w.Note = func(string) {}
	}
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
	size int64 // of the medium, in bytes, at most
	fill func(context.Context, io.Writer) error
	// prepare sets the two, when it is known that the target may be written to: it may
	// take long. It is nil where they are known.
	prepare func(*writer) error
}

func (w writer) writeFile(ctx context.Context, target string) (err error) {
	if err := w.ready(); err != nil {
		return err
	}
	out, err := durable.Create(target, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	size, err := w.fileSize(target)
	if err != nil {
		return err
	}
	if w.Data != 0 {
		if err := out.Truncate(size); err != nil {
			return err
		}
	}
	p, err := w.writeMedium(ctx, out.File, size)
	if err == nil {
		err = p.write(ctx, out.Name(), size)
	}
	if err != nil {
		return err
	}
	return out.Commit()
}

// ready prepares what has to be.
func (w *writer) ready() error {
	if w.prepare == nil {
		return nil
	}
	return w.prepare(w)
}

// fileSize is how large a file becomes: as large as the medium and its data need.
func (w writer) fileSize(target string) (int64, error) {
	if w.Data == RestOfStick {
		return 0, fmt.Errorf("%s is a file, which has no rest: give --data a size", target)
	}
	old, err := os.Open(target)
	if err == nil {
		defer old.Close()
		end, err := old.Seek(0, io.SeekEnd)
		if err != nil {
			return 0, err
		}
		if _, found := findData(old, end); found && !w.EraseData {
			return 0, fmt.Errorf("%s has saved data: a file is replaced as a whole, so name another one, or give --erase-data", target)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	if w.Data == 0 {
		return w.size, nil
	}
	return (w.size+mib-1)/mib*mib + w.Data/mib*mib + tableRoom, nil
}

// writeMedium writes the medium to a stick or file of so many bytes, and returns what shall
// come behind it.
func (w writer) writeMedium(ctx context.Context, out *os.File, size int64) (dataPlan, error) {
	if size < w.size {
		return dataPlan{}, fmt.Errorf("it is too small: the medium has up to %d MiB", w.size/mib)
	}
	p, err := planData(out, size, w.size, w.Data, w.EraseData)
	if err != nil {
		return p, err
	}
	if err := p.tools(); err != nil {
		return p, err
	}
	if text := p.String(); text != "" {
		w.Note(text)
	}
	if err := p.forget(out, size); err != nil {
		return p, err
	}
	if err := p.remember(ctx, out, size); err != nil {
		return p, err
	}
	return p, w.writeAndVerify(ctx, out)
}

func (w writer) writeDevice(ctx context.Context, target string, fi os.FileInfo) (where string, err error) {
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
	release := keepFromUdev(target)
	defer func() { err = errors.Join(err, release()) }()
	// O_EXCL on a block device fails while anything in the kernel holds it.
	out, err := os.OpenFile(target, os.O_RDWR|syscall.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		err = fmt.Errorf("%s (%s) is not written to: the kernel uses it or a part of it: %w", target, d, err)
	}
	if err != nil {
		return "", err
	}
	if err := w.mayReplace(out, d); err != nil {
		return "", errors.Join(fmt.Errorf("%s (%s) is not written to: %w", target, d, err), out.Close())
	}
	var p dataPlan
	if err = w.ready(); err == nil {
		p, err = w.writeMedium(ctx, out, d.size)
	}
	// mkfs.ext4 wants the device for itself, too.
	if err = errors.Join(err, out.Close()); err == nil {
		err = p.write(ctx, target, d.size)
	}
	if err != nil {
		return "", fmt.Errorf("%s (%s): %w", target, d, err)
	}
	// The kernel learns of the new partitions; a busy device keeps the old
	// view until it is plugged in again.
	if out, err := os.OpenFile(target, os.O_RDWR, 0); err == nil {
		_ = unix.IoctlSetInt(int(out.Fd()), unix.BLKRRPART, 0)
		out.Close()
	}
	return fmt.Sprintf("%s (%s)", target, d), nil
}

// keepFromUdev keeps udev from looking at a device until it is released, so that nothing
// mounts what is half written (systemd's "Locking Block Device Access"). Where it cannot,
// writing goes on without.
func keepFromUdev(device string) (release func() error) {
	f, err := os.Open(device)
	if err != nil {
		return func() error { return nil } // who writes to it says so
	}
	_ = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	return f.Close
}

// mayReplace asks about what is on a stick, unless that is nothing or a medium of ours.
func (w writer) mayReplace(r io.ReaderAt, d device) error {
	list := contents(r, d.size)
	if len(list) == 0 || w.Force {
		return nil
	}
	what := strings.Join(list, ", ")
	if w.Confirm == nil {
		return fmt.Errorf("it has %s; --yes writes to it all the same, and all of that is lost", what)
	}
	yes, err := w.Confirm(fmt.Sprintf("%s has %s. All of that is lost.", d, what))
	if err == nil && !yes {
		err = errors.New("you did not say yes")
	}
	return err
}

// head is the part of a medium that makes it one: boot sectors, partition
// table, volume label.
const head = 1 << 20

// writeAndVerify writes the medium to out and reads it back. The head is cleared
// first and written last: an interrupted write leaves a stick that boots nothing
// and is taken for no medium.
func (w writer) writeAndVerify(ctx context.Context, out *os.File) error {
	if _, err := out.WriteAt(make([]byte, min(w.size, head)), 0); err != nil {
		return err
	}
	to := &sink{ctx: ctx, out: out, size: w.size, hash: sha256.New(), progress: func(done int64) { w.Progress("write", done, w.size) }}
	buffered := bufio.NewWriterSize(to, 4*mib)
	err := w.fill(ctx, buffered)
	if err == nil {
		err = buffered.Flush()
	}
	// Whoever writes into a sink that fails only knows that it did.
	if err = cmp.Or(to.err, err); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := out.Sync(); err != nil {
		return err
	}
	if _, err := out.WriteAt(to.head, 0); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := out.Sync(); err != nil {
		return err
	}
	// Forget the cached pages, so that the device itself is read.
	_ = unix.Fadvise(int(out.Fd()), 0, to.done, unix.FADV_DONTNEED)
	read := sha256.New()
	if err := w.readBack(ctx, read, io.NewSectionReader(out, 0, to.done), to.done); err != nil {
		return err
	}
	if string(to.hash.Sum(nil)) != string(read.Sum(nil)) {
		return fmt.Errorf("%s reads back other bytes than were written: the device is worn out or not as large as it says", out.Name())
	}
	return nil
}

// sink takes a medium from its beginning to its end. It keeps the head back, and waits
// for the device now and then: otherwise the progress would be that of the page cache.
type sink struct {
	ctx      context.Context
	out      *os.File
	size     int64 // more is refused
	progress func(done int64)
	hash     hash.Hash
	head     []byte
	done     int64
	pending  int
	err      error // the first
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.write(p)
	s.err = cmp.Or(s.err, err)
	return n, err
}

func (s *sink) write(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if s.done+int64(len(p)) > s.size {
		return 0, fmt.Errorf("the medium has more than the %d MiB that were expected: an image changed meanwhile; try again", s.size/mib)
	}
	s.hash.Write(p)
	n := min(len(p), head-len(s.head))
	s.head = append(s.head, p[:n]...)
	if _, err := s.out.WriteAt(p[n:], s.done+int64(n)); err != nil {
		return 0, err
	}
	s.done += int64(len(p))
	s.progress(s.done)
	if s.pending += len(p); s.pending >= 16*mib {
		s.pending = 0
		return len(p), s.out.Sync()
	}
	return len(p), nil
}

// readBack moves all of the medium, which has so many bytes, to to.
func (w writer) readBack(ctx context.Context, to io.Writer, from io.Reader, size int64) error {
	buf := make([]byte, 4*mib)
	for done := int64(0); done < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(from, buf[:min(int64(len(buf)), size-done)])
		if err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		done += int64(n)
		w.Progress("read back", done, size)
	}
	return nil
}
