package runes

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"viver.lan/internal/durable"
)

// nothing ends the name of an original where there was none.
const nothing = ".none"

// original is the file in dir for what was at a path. A path is too long for a name.
func original(dir, path string) string {
	digest := sha256.Sum256([]byte(path))
	return filepath.Join(dir, hex.EncodeToString(digest[:16]))
}

// Keep saves what is at a path in a directory, for Restore. What is there already was
// saved before the path was changed first.
func (s *System) Keep(path, dir string) error {
	to := original(dir, path)
	for _, name := range []string{to, to + nothing} {
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	resolved, err := s.t.resolveParent(path)
	if errors.Is(err, fs.ErrNotExist) {
		return durable.WriteFile(to+nothing, nil, 0o600)
	}
	if err != nil {
		return err
	}
	r, name := s.t.at(resolved)
	if link, err := r.Readlink(name); err == nil {
		return os.Symlink(link, to)
	}
	data, info, err := s.t.read(resolved, maxRendered)
	switch {
	case err != nil:
		return fmt.Errorf("what is there now cannot be kept: %w", err)
	case info == nil:
		return durable.WriteFile(to+nothing, nil, 0o600)
	}
	kept, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer kept.Close() // opened for reading: nothing can be lost
	return replaceWith(kept, filepath.Base(to), func(temp string) error { return writeLike(kept, temp, info, data) })
}

// writeLike makes a file that has the owner and mode of another one: what is kept of a
// user's with setuid must not come back as root's.
func writeLike(r *os.Root, name string, info fs.FileInfo, data []byte) error {
	uid, gid := ownerOf(info)
	return writeOwned(r, name, uid, gid, info.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid), data)
}

// Restore puts back what Keep saved of a path; where nothing was, or is known, it takes
// away what there is now.
func (s *System) Restore(path, dir string) error {
	from := original(dir, path)
	info, err := os.Lstat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.Join(s.t.remove(path), ignoreMissing(os.Remove(from+nothing)))
	}
	if err != nil {
		return err
	}
	resolved, err := s.t.resolveParent(path)
	if err != nil {
		return err
	}
	var create func(r *os.Root, temp string) error
	if info.Mode()&fs.ModeSymlink != 0 {
		link, err := os.Readlink(from)
		if err != nil {
			return err
		}
		create = func(r *os.Root, temp string) error { return r.Symlink(link, temp) }
	} else {
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		create = func(r *os.Root, temp string) error { return writeLike(r, temp, info, data) }
	}
	err = s.t.in(resolved, func(r *os.Root, name string) error {
		return replaceWith(r, name, func(temp string) error { return create(r, temp) })
	})
	if err != nil {
		return err
	}
	return os.Remove(from)
}
