// Package machinetest is a machine that exists in a temporary directory only.
//
// Its Host writes down what it is asked to do instead of doing it, and fails on
// request. It does not imitate the kernel: a test that needs a real mount runs
// in a namespace. The one invariant: nothing outside its root is touched.
package machinetest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Host records operations. It is safe for concurrent use.
type Host struct {
	// Root is the temporary directory that stands for "/".
	Root string
	// Fail, when set, is asked before each operation with the same text that
	// is recorded; the error it returns becomes the operation's.
	Fail func(call string) error
	// OnMount, when set, runs after a successful Mount, e.g. to fill target.
	OnMount func(source, target, fstype string)
	// Free is what Space answers, in bytes.
	Free int64

	mu    sync.Mutex
	calls []string
}

// New returns a machine whose root holds the given files (path to contents).
// A path that ends in "/" is a directory; contents that begin with "-> " make
// a symbolic link.
func New(t testing.TB, files map[string]string) *Host {
	t.Helper()
	h := &Host{Root: t.TempDir(), Free: 1 << 30}
	for name, content := range files {
		h.Put(t, name, content)
	}
	return h
}

// Put adds one file, see New.
func (h *Host) Put(t testing.TB, name, content string) {
	t.Helper()
	path := h.Path(name)
	dir := filepath.Dir(path)
	if strings.HasSuffix(name, "/") {
		dir = path
	}
	err := os.MkdirAll(dir, 0o755)
	target, link := strings.CutPrefix(content, "-> ")
	switch {
	case err != nil || strings.HasSuffix(name, "/"):
	case link:
		err = os.Symlink(target, path)
	default:
		err = os.WriteFile(path, []byte(content), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Path returns where the absolute path name is found.
func (h *Host) Path(name string) string { return filepath.Join(h.Root, name) }

// Calls returns what was asked for so far, one line per operation, with the
// temporary directory left out.
func (h *Host) Calls() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.calls...)
}

func (h *Host) call(format string, args ...any) error {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), h.Root, "")
	h.mu.Lock()
	h.calls = append(h.calls, text)
	h.mu.Unlock()
	if h.Fail == nil {
		return nil
	}
	return h.Fail(text)
}

// Mount records "mount source target fstype flags data".
func (h *Host) Mount(source, target, fstype string, flags uintptr, data string) error {
	if err := h.call("mount %s %s %s %#x %s", source, target, fstype, flags, data); err != nil {
		return err
	}
	if h.OnMount != nil {
		h.OnMount(source, target, fstype)
	}
	return nil
}

// Unmount records "unmount target flags".
func (h *Host) Unmount(target string, flags int) error {
	return h.call("unmount %s %#x", target, flags)
}

// Space answers Free and a generous number of inodes.
func (h *Host) Space(path string) (free int64, inodes uint64, err error) {
	return h.Free, 1 << 20, nil
}

// InMemory answers that everything lives in memory.
func (h *Host) InMemory(dir *os.File) (bool, error) { return true, nil }

// Loop records "loop path write" and later "unloop path"; the device is the path.
func (h *Host) Loop(path string, write bool) (string, func() error, error) {
	if err := h.call("loop %s %t", path, write); err != nil {
		return "", nil, err
	}
	return path, func() error { return h.call("unloop %s", path) }, nil
}

// SetReadOnly records "protect path" and later "unprotect path".
func (h *Host) SetReadOnly(path string) (func() error, error) {
	if err := h.call("protect %s", path); err != nil {
		return nil, err
	}
	return func() error { return h.call("unprotect %s", path) }, nil
}

// InsertModule records "insert path params".
func (h *Host) InsertModule(path, params string) error {
	return h.call("insert %s %s", path, params)
}

// InsertModuleBytes records "insert bytes params" and the number of bytes.
func (h *Host) InsertModuleBytes(image []byte, params string) error {
	return h.call("insert %d bytes %s", len(image), params)
}

// Chdir records "chdir dir".
func (h *Host) Chdir(dir string) error { return h.call("chdir %s", dir) }

// Fchdir records "fchdir dir".
func (h *Host) Fchdir(dir *os.File) error { return h.call("fchdir %s", dir.Name()) }

// Chroot records "chroot dir".
func (h *Host) Chroot(dir string) error { return h.call("chroot %s", dir) }

// Exec records "exec path argv env".
func (h *Host) Exec(path string, argv, env []string) error {
	return h.call("exec %s %q %q", path, argv, env)
}

// Reboot records "reboot cmd".
func (h *Host) Reboot(cmd int) error { return h.call("reboot %#x", cmd) }
