// Package durable writes files that are either whole or absent.
//
// A file is written under a temporary name in its own directory, synced and
// renamed, so neither a crash nor Ctrl-C leaves half a file under the final
// name. It is not a transaction over several files.
package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Suffix ends the names of files and directories that are in the making; they
// begin with a dot.
const Suffix = ".part"

// File is a file in the making. It becomes visible under its final name when
// Commit succeeds.
type File struct {
	*os.File
	path      string
	committed bool
}

// Create opens a temporary file beside path. The caller must Close it, and
// calls Commit first when the content is complete.
func Create(path string, perm os.FileMode) (*File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*"+Suffix)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	if err := f.Chmod(perm); err != nil {
		return nil, errors.Join(fmt.Errorf("create %s: %w", path, err), f.Close(), os.Remove(f.Name()))
	}
	return &File{File: f, path: path}, nil
}

// Commit makes the content durable and gives the file its final name,
// replacing a file of that name.
func (f *File) Commit() error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	if err := os.Rename(f.Name(), f.path); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	f.committed = true
	return SyncDir(filepath.Dir(f.path))
}

// Close closes the file and, when it was not committed, removes it.
func (f *File) Close() error {
	err := f.File.Close()
	if !f.committed {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// WriteFile stores data under path, replacing a file of that name whole.
func WriteFile(path string, data []byte, perm os.FileMode) (err error) {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.Commit()
}

// SyncDir makes a rename in dir durable. Some file systems (vfat among them)
// refuse fsync on a directory; the rename has been done and stays valid, so
// that refusal is no error.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
