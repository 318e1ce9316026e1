// Package rootpath finds where a path leads for a process whose root directory is
// another one: an absolute symbolic link starts there again, and ".." does not leave
// it. os.Root refuses such links instead.
//
// It reads links, by a function of the caller's where the root is no directory, and
// touches nothing. The invariant: what it returns leads through no symbolic link and not out of the root.
package rootpath

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks is the kernel's limit on symbolic links in one path (path_resolution(7)).
const maxLinks = 40

// In is Resolve for a root that is a directory of this machine.
func In(root, name string) (string, error) {
	return Resolve(name, func(name string) (string, error) { return os.Readlink(filepath.Join(root, name)) })
}

// Resolve follows each symbolic link in name and returns an absolute path without
// them, where "/" is the root. readlink returns where the link of such a path leads; an
// error that wraps fs.ErrNotExist or, as readlink(2) has it, EINVAL says that there is
// no link. So what does not exist is taken as it stands.
func Resolve(name string, readlink func(name string) (string, error)) (string, error) {
	done, rest := "/", strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		next := path.Join(done, rest[0]) // ".." at the top stays at the top
		up := rest[0] == ".."
		rest = rest[1:]
		if up || next == done {
			done = next
			continue
		}
		target, err := readlink(next)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EINVAL):
			done = next
			continue
		case err != nil:
			return "", err
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "resolve", Path: name, Err: syscall.ELOOP}
		}
		if path.IsAbs(target) {
			done = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return done, nil
}
