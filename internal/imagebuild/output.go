package imagebuild

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"viver.lan/internal/manifest"
)

// output is a directory in the making. It gets its name when it is complete.
type output struct {
	dir   string // where files are written
	final string
	lock  *os.File
}

const partSuffix = ".part"

// newOutput makes a temporary directory beside final, and clears away those
// that a killed build has left there.
func newOutput(final string) (*output, error) {
	final, err := filepath.Abs(final)
	if err != nil {
		return nil, err
	}
	if err := replaceable(final); err != nil {
		return nil, err
	}
	parent := filepath.Dir(final)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return nil, err
	}
	stem := "." + filepath.Base(final) + "."
	clearAbandoned(filepath.Join(parent, stem+"*"+partSuffix))
	dir, err := os.MkdirTemp(parent, stem+"*"+partSuffix)
	if err != nil {
		return nil, err
	}
	o := &output{dir: dir, final: final}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, errors.Join(err, o.discard())
	}
	if o.lock, err = lockDir(dir); err != nil {
		return nil, errors.Join(err, o.discard())
	}
	return o, nil
}

// replaceable refuses to put an image in the place of something else.
func replaceable(final string) error {
	names, err := os.ReadDir(final)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	_, err = os.Stat(filepath.Join(final, manifest.File))
	if len(names) > 0 && err != nil {
		return fmt.Errorf("output %s exists and is not an image: choose another name or remove it", final)
	}
	return nil
}

// clearAbandoned removes temporary directories whose builder is gone.
func clearAbandoned(pattern string) {
	old, _ := filepath.Glob(pattern) // fails on a bad pattern only; then nothing is cleared
	for _, dir := range old {
		if lock, err := lockDir(dir); err == nil {
			_ = os.RemoveAll(dir) // tried again by the next build
			_ = lock.Close()
		}
	}
}

// lockDir marks a directory as in use for as long as the process lives.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// commit makes everything durable and gives the directory its name.
func (o *output) commit() error {
	if err := unix.Syncfs(int(o.lock.Fd())); err != nil {
		return fmt.Errorf("write %s: %w", o.final, err)
	}
	err := unix.Renameat2(unix.AT_FDCWD, o.dir, unix.AT_FDCWD, o.final, unix.RENAME_EXCHANGE)
	if err == nil { // dir now holds what was there before; discard removes it
		return nil
	}
	if err := os.Rename(o.dir, o.final); err == nil {
		return nil
	}
	// No exchange on this file system: take the old one away first.
	if err := os.RemoveAll(o.final); err != nil {
		return err
	}
	return os.Rename(o.dir, o.final)
}

// discard removes the temporary directory; after commit there is none, or it
// holds the image that was replaced.
func (o *output) discard() error {
	err := os.RemoveAll(o.dir)
	if o.lock != nil {
		err = errors.Join(err, o.lock.Close())
	}
	return err
}

// explainSpace turns a full disk into a sentence that says what to do.
func explainSpace(err error, dir string) error {
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	return fmt.Errorf("the disk of %s is full (%d MiB free, nothing was kept): make room or choose another output: %w", dir, free(dir)>>20, err)
}

// free returns the bytes that may still be written to the disk of dir, 0 when
// that cannot be told.
func free(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0
	}
	return int64(st.Bavail) * st.Bsize
}

// writeTo creates a file and lets write fill it.
func writeTo(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

func copyTo(name string, r io.Reader) error {
	return writeTo(name, func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
}
