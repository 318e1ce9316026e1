package imagedir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"viver.lan/internal/durable"
	"viver.lan/internal/manifest"
)

// Dir is an image directory in the making. It gets its name when it is complete.
type Dir struct {
	// Path is where files are written meanwhile.
	Path  string
	final string
	lock  *os.File
}

// Create makes a temporary directory beside final, and clears away those that a
// killed build has left there. The caller must Close it, and calls Commit first
// when the image is complete.
func Create(final string) (*Dir, error) {
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
	clearAbandoned(filepath.Join(parent, stem+"*"+durable.Suffix))
	path, err := os.MkdirTemp(parent, stem+"*"+durable.Suffix)
	if err != nil {
		return nil, err
	}
	d := &Dir{Path: path, final: final}
	if err := os.Chmod(path, 0o755); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if d.lock, err = lockDir(path); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
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

// Commit makes everything durable and gives the directory its name, for good: what is
// written comes first, so the name is never that of a part, and after a loss of power too.
func (d *Dir) Commit() error {
	if err := unix.Syncfs(int(d.lock.Fd())); err != nil {
		return fmt.Errorf("write %s: %w", d.final, err)
	}
	if err := d.rename(); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(d.final))
}

func (d *Dir) rename() error {
	err := unix.Renameat2(unix.AT_FDCWD, d.Path, unix.AT_FDCWD, d.final, unix.RENAME_EXCHANGE)
	if err == nil { // dir now holds what was there before; Close removes it
		return nil
	}
	if err := os.Rename(d.Path, d.final); err == nil {
		return nil
	}
	// No exchange on this file system: take the old one away first.
	if err := os.RemoveAll(d.final); err != nil {
		return err
	}
	return os.Rename(d.Path, d.final)
}

// Close removes the temporary directory; after Commit there is none, or it
// holds the image that was replaced.
func (d *Dir) Close() error {
	err := os.RemoveAll(d.Path)
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return err
}
