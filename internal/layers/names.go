package layers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// Bounds of LookUpNames.
const (
	maxDepth = 3     // below the directories where it begins
	maxNames = 20000 // each takes about 1 KiB of memory, which the kernel can take back
)

// bootDirs are the directories with nearly all that a boot looks for, in the order of the
// disk.
func bootDirs() []string {
	return []string{"bin", "etc", "lib", "sbin", "usr/bin", "usr/lib", "usr/sbin"}
}

// LookUpNames looks up the names that a boot needs most in the image that is mounted at
// lower, and returns how many. The kernel then knows them.
//
// A squashfs has only eight blocks of its tables in memory, and a kernel before 6.3 makes
// two requests of the disk for each. A boot goes to and fro among fifty of them: of the
// 1,400 reads of a Debian's, 900 were of tables that had been read before. Looked up in the
// order in which they lie on the disk, names need each block once.
//
// It is of use and nothing depends on it. The error says which directories could not be
// read, or that ctx has ended.
func LookUpNames(ctx context.Context, lower string) (names int, err error) {
	w := lookUp{ctx: ctx}
	for _, dir := range bootDirs() {
		dir = filepath.Join(lower, dir)
		if info, err := os.Lstat(dir); err == nil && info.IsDir() { // not a link to another of them
			w.walk(dir, maxDepth)
		}
	}
	return w.names, errors.Join(append(w.errs, ctx.Err())...)
}

type lookUp struct {
	ctx   context.Context
	names int
	errs  []error
}

// walk looks up what is in dir and, to some depth, below.
func (w *lookUp) walk(dir string, depth int) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		w.errs = append(w.errs, err)
		return
	}
	for _, e := range entries {
		if w.names == maxNames || w.ctx.Err() != nil {
			return
		}
		w.names++
		if _, err := e.Info(); err == nil && e.IsDir() && depth > 1 {
			w.walk(filepath.Join(dir, e.Name()), depth-1)
		}
	}
}
