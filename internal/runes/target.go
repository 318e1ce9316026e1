package runes

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"viver.lan/internal/mountinfo"
	"viver.lan/internal/rootpath"
)

// target is the root under construction together with the tmpfs that will be
// its /run. Paths are resolved here as they will be once the root is "/", so
// an absolute link in the image means the image. os.Root is the second protection.
type target struct {
	root *os.Root
	run  *os.Root // nil when /run is an ordinary directory of the root
	// mounts are those of the root when it is of a running system.
	mounts []mountinfo.Mount
	// owner is the rune that has laid a path.
	owner map[string]string
}

func openTarget(t Target) (*target, error) {
	root, err := os.OpenRoot(t.Root)
	if err != nil {
		return nil, err
	}
	if t.Run == "" {
		return &target{root: root, owner: make(map[string]string)}, nil
	}
	run, err := os.OpenRoot(t.Run)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &target{root: root, run: run, owner: make(map[string]string)}, nil
}

func (t *target) Close() error {
	if t.run == nil {
		return t.root.Close()
	}
	return errors.Join(t.root.Close(), t.run.Close())
}

// at returns where a resolved path lives.
func (t *target) at(resolved string) (*os.Root, string) {
	if t.run != nil {
		if resolved == "/run" {
			return t.run, "."
		}
		if rest, ok := strings.CutPrefix(resolved, "/run/"); ok {
			return t.run, rest
		}
	}
	if resolved == "/" {
		return t.root, "."
	}
	return t.root, resolved[1:]
}

// errServer keeps us from what another machine has: one that is off would stop us.
var errServer = errors.New("that is on a file server, where nothing is looked up or laid: take a path that is not")

// onServer reports whether the running system has a file system of another machine
// there. The root itself does not count: nothing goes without it.
func (t *target) onServer(p string) bool {
	point, kind := "/", ""
	for _, m := range t.mounts {
		if m.Point != "/" && (p == m.Point || strings.HasPrefix(p, m.Point+"/")) && len(m.Point) >= len(point) {
			point, kind = m.Point, m.Type
		}
	}
	return slices.Contains([]string{"nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "afs", "autofs"}, kind) || strings.HasPrefix(kind, "fuse.")
}

func (t *target) lstat(resolved string) (fs.FileInfo, error) {
	if t.onServer(resolved) {
		return nil, errServer
	}
	r, name := t.at(resolved)
	return r.Lstat(name)
}

// resolve follows every symbolic link of p. What does not exist is taken as it stands,
// and so is what is on a file server.
func (t *target) resolve(p string) (string, error) {
	return rootpath.Resolve(p, t.readlink)
}

func (t *target) readlink(resolved string) (string, error) {
	if t.onServer(resolved) {
		return "", syscall.EINVAL
	}
	r, name := t.at(resolved)
	return r.Readlink(name)
}

// resolveTrusted is resolve for what is changed: a link that is not root's alone to make
// could lead anywhere, so it is an error.
func (t *target) resolveTrusted(p string) (string, error) {
	return rootpath.Resolve(p, func(name string) (string, error) {
		to, err := t.readlink(name)
		if err == nil {
			err = t.trusted(name)
		}
		return to, err
	})
}

// trusted returns an error if a user may put a link where this one is: if not all
// directories above are root's, as the root itself is.
func (t *target) trusted(link string) error {
	top, err := t.lstat("/")
	if err != nil {
		return err
	}
	uid, gid := ownerOf(top)
	for dir := path.Dir(link); dir != "/"; dir = path.Dir(dir) {
		info, err := t.lstat(dir)
		if err != nil {
			return err
		}
		u, g := ownerOf(info)
		shared := info.Mode()&0o002 != 0 || info.Mode()&0o020 != 0 && g != 0 && g != gid
		if shared || u != 0 && u != uid {
			return fmt.Errorf("%s is a link that a user may have made, so it is not followed: name the place where it leads", link)
		}
	}
	return nil
}

// in calls do with the directory of a resolved path and the path's name in it. It goes
// there step by step and through no link: a user may put one into a directory of the
// user's after the path was resolved.
func (t *target) in(resolved string, do func(dir *os.Root, name string) error) error {
	r, name := t.at(resolved)
	dir, err := r.OpenRoot(".")
	for _, step := range strings.Split(path.Dir(name), "/") {
		if err != nil {
			return err
		}
		above := dir
		dir, err = enter(above, step)
		err = errors.Join(err, above.Close())
	}
	if err != nil {
		return err
	}
	return errors.Join(do(dir, path.Base(name)), dir.Close())
}

// enter opens a directory, and nothing that a link of its name leads to.
func enter(above *os.Root, name string) (*os.Root, error) {
	named, err := above.Lstat(name)
	if err != nil {
		return nil, err
	}
	dir, err := above.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	opened, err := dir.Stat(".")
	if err == nil && !os.SameFile(named, opened) {
		err = fmt.Errorf("%s is a link or was replaced, want a directory", name)
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// resolveParent follows the links of p that are root's, but not one of the name p itself.
func (t *target) resolveParent(p string) (string, error) {
	dir, err := t.resolveTrusted(path.Dir(p))
	resolved := path.Join(dir, path.Base(p))
	if err == nil && t.onServer(resolved) {
		err = errServer
	}
	return resolved, err
}

// exists reports whether p, links followed, is there. What a file server has is taken
// to be.
func (t *target) exists(p string) bool {
	resolved, err := t.resolve(p)
	if err != nil {
		return false
	}
	_, err = t.lstat(resolved)
	return err == nil || errors.Is(err, errServer)
}

func (t *target) isLink(p string) bool {
	resolved, err := t.resolveParent(p)
	if err != nil {
		return false
	}
	info, err := t.lstat(resolved)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// content returns what the file p holds, links followed, ending in a newline
// unless it is empty. No file is no content.
func (t *target) content(p string) (string, error) {
	resolved, err := t.resolve(p)
	if err != nil {
		return "", err
	}
	data, _, err := t.read(resolved, maxRendered)
	if len(data) > 0 && !bytes.HasSuffix(data, []byte("\n")) {
		data = append(data, '\n')
	}
	return string(data), err
}

// read returns a regular file's content of at most limit bytes. Anything else is nothing.
func (t *target) read(resolved string, limit int64) ([]byte, fs.FileInfo, error) {
	info, err := t.lstat(resolved)
	if err != nil || !info.Mode().IsRegular() {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return nil, nil, err
	}
	if info.Size() > limit {
		return nil, nil, fmt.Errorf("%s holds %d bytes already; the limit is %d", resolved, info.Size(), limit)
	}
	var data []byte
	err = t.in(resolved, func(r *os.Root, name string) error {
		f, err := r.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() { // a user may have replaced it
			err = errors.New("it is a regular file no more")
		}
		if err == nil {
			data, err = io.ReadAll(io.LimitReader(f, limit))
		}
		return err
	})
	return data, info, err
}

// lay puts one item in place. Its parents are made as needed, links among them
// followed inside the root; a link or file of its own name is replaced, never
// written through. dirModes are the modes that the rune wants of directories.
func (t *target) lay(it item, dirModes map[string]fs.FileMode) error {
	resolved, err := t.resolveParent(it.path)
	if err != nil {
		return err
	}
	if info, err := t.lstat(resolved); err == nil && info.IsDir() {
		return errors.New("there is a directory of that name in the root")
	}
	if err := t.makeDirs(it.path, dirModes); err != nil {
		return err
	}
	if it.link == "" && t.same(resolved, it.mode, it.data) {
		return nil
	}
	return t.in(resolved, func(r *os.Root, name string) error {
		if it.link == "" {
			return replaceWith(r, name, func(temp string) error { return writeNew(r, temp, it.mode, it.data) })
		}
		if old, err := r.Readlink(name); err == nil && old == it.link {
			return nil
		}
		return replaceWith(r, name, func(temp string) error { return r.Symlink(it.link, temp) })
	})
}

// remove takes away what has the name p, links among its parents followed inside the
// root; a directory is an error, and nothing of that name is none.
func (t *target) remove(p string) error {
	resolved, err := t.resolveParent(p)
	if err != nil {
		return err
	}
	info, err := t.lstat(resolved)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.IsDir() {
		err = errors.New("there is a directory of that name in the root")
	}
	if err != nil {
		return err
	}
	return t.in(resolved, (*os.Root).Remove)
}

// same spares the overlay a copy of what the image holds already.
func (t *target) same(resolved string, mode fs.FileMode, data []byte) bool {
	old, info, err := t.read(resolved, int64(len(data))) // a larger one is another
	return err == nil && info != nil && info.Mode().Perm() == mode && bytes.Equal(old, data)
}

// makeDirs makes the directories above p, where the links among them lead, and
// gives those that the rune names the mode it wants.
func (t *target) makeDirs(p string, modes map[string]fs.FileMode) error {
	resolved, err := t.resolveTrusted(path.Dir(p))
	if err != nil {
		return err
	}
	if err := t.makeDir(resolved); err != nil {
		return err
	}
	for dir, mode := range modes {
		if !strings.HasPrefix(p, dir+"/") {
			continue
		}
		resolved, err := t.resolveTrusted(dir)
		if err != nil {
			return err
		}
		info, err := t.lstat(resolved)
		if err == nil && info.Mode().Perm() != mode {
			err = t.in(resolved, func(r *os.Root, name string) error { return r.Chmod(name, mode) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *target) makeDir(resolved string) error {
	info, err := t.lstat(resolved)
	switch {
	case err == nil && !info.IsDir():
		return fmt.Errorf("%s is not a directory", resolved)
	case err == nil || !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := t.makeDir(path.Dir(resolved)); err != nil {
		return err
	}
	return t.in(resolved, func(r *os.Root, name string) error {
		if err := r.Mkdir(name, 0o755); err != nil {
			return err
		}
		return r.Chmod(name, 0o755) // the umask does not apply
	})
}

// replaceWith makes a file under a temporary name beside its place and then
// puts it there in one step.
func replaceWith(r *os.Root, name string, create func(temp string) error) error {
	temp := path.Join(path.Dir(name), "."+path.Base(name)+".rune-part")
	if err := r.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // left by an interrupted boot, and in the way
	}
	err := create(temp)
	if err == nil {
		err = r.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, ignoreMissing(r.Remove(temp)))
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func writeNew(r *os.Root, name string, mode fs.FileMode, data []byte) error {
	return writeOwned(r, name, -1, -1, mode, data)
}

// writeOwned gives the open file to its owner: the name may be another's by then.
func writeOwned(r *os.Root, name string, uid, gid int, mode fs.FileMode, data []byte) error {
	f, err := r.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chown(uid, gid)
	}
	if err == nil {
		err = f.Chmod(mode) // last: a change of the owner takes setuid away
	}
	return errors.Join(err, f.Close())
}
