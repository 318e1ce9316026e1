// Package upper looks into the writable layer of an overlay: which of the files that were
// written to a machine take the room.
//
// It only reads. The invariant: what it keeps does not grow with the number of files, except
// for those with several names.
package upper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"viver.lan/internal/mountinfo"
)

// ErrNoOverlay: what is mounted at / has no writable layer of its own.
var ErrNoOverlay = errors.New("the root of this machine is no overlay")

// File is one that was written.
type File struct {
	Path    string    `json:"path"`  // as the machine sees it
	Bytes   int64     `json:"bytes"` // that it takes, holes not counted
	Changed time.Time `json:"changed"`
}

// Folder is a directory with files that were written right in it.
type Folder struct {
	Path  string `json:"path"`
	Files int    `json:"files"`
}

// Usage is what a layer has.
type Usage struct {
	Bytes   int64    `json:"bytes"`
	Files   int      `json:"files"` // directories, links and the rest too
	Largest []File   `json:"largest"`
	Fullest []Folder `json:"fullest"`
	Skipped int      `json:"skipped,omitempty"` // could not be read, or went away meanwhile
}

// Dir returns the directory that has the writable layer of the overlay at /, given what is
// mounted; ErrNoOverlay when there is none.
func Dir(mounts []mountinfo.Mount) (string, error) {
	for _, m := range slices.Backward(mounts) {
		if m.Point != "/" {
			continue
		}
		for _, o := range m.Options {
			if dir, ok := strings.CutPrefix(o, "upperdir="); ok && m.Type == "overlay" {
				return dir, nil
			}
		}
		return "", fmt.Errorf("%w but %s: nothing here was written over an image", ErrNoOverlay, m.Type)
	}
	return "", ErrNoOverlay
}

// Measure walks through a layer and returns its most files and directories of each kind. Files
// come and go meanwhile. It ends early with ctx's error.
func Measure(ctx context.Context, dir string, most int) (*Usage, error) {
	u := new(Usage)
	type inode struct{ device, number uint64 }
	seen := make(map[inode]bool) // those with several names
	in := make(map[string]int)   // files right in the directories that the walk is in
	full := func(folder string) {
		u.Fullest = insert(u.Fullest, Folder{folder, in[folder]}, most, func(a, b Folder) int { return cmp.Compare(b.Files, a.Files) })
	}
	// leave takes the account of the directories that the walk has left.
	leave := func(next string) {
		for folder := range in {
			if folder != next && folder != "/" && !strings.HasPrefix(next, folder+"/") {
				full(folder)
				delete(in, folder)
			}
		}
	}
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if name == dir {
				return err
			}
			u.Skipped++
			return nil
		}
		if name == dir {
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			u.Skipped++
			return nil
		}
		path := strings.TrimPrefix(name, dir)
		parent := filepath.Dir(path)
		leave(parent)
		in[parent]++
		u.Files++
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: this system does not say what a file takes", name)
		}
		id := inode{st.Dev, st.Ino}
		if st.Nlink > 1 && !entry.IsDir() {
			if seen[id] {
				return nil
			}
			seen[id] = true
		}
		const block = 512 // stat(2)
		bytes := st.Blocks * block
		u.Bytes += bytes
		if entry.Type().IsRegular() {
			u.Largest = insert(u.Largest, File{path, bytes, info.ModTime()}, most, func(a, b File) int { return cmp.Compare(b.Bytes, a.Bytes) })
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at what was written: %w", err)
	}
	for folder := range in {
		full(folder)
	}
	return u, nil
}

// insert puts one into a sorted list of at most so many.
func insert[T any](list []T, one T, most int, compare func(a, b T) int) []T {
	i, _ := slices.BinarySearchFunc(list, one, compare)
	if i >= most {
		return list
	}
	list = slices.Insert(list, i, one)
	return list[:min(len(list), most)]
}
