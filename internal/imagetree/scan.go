package imagetree

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"viver.lan/internal/durable"
	"viver.lan/internal/exclude"
	"viver.lan/internal/manifest"
	"viver.lan/internal/mountinfo"
)

// Scan indexes the tree at source: a directory (also "/") or an uncompressed
// tar archive. choice is what shall be in the tree otherwise than the rules of package
// exclude say, nil for nothing; skip lists host paths that are not part of the tree,
// such as the image being written.
func Scan(ctx context.Context, source string, choice *exclude.Choice, skip ...string) (*Tree, error) {
	fi, err := os.Stat(source)
	if err != nil {
		return nil, err
	}
	return scan(choice, func(t *Tree) error {
		switch {
		case fi.IsDir():
			return t.scanDir(ctx, source, skip)
		case fi.Mode().IsRegular():
			return t.scanTar(ctx, source)
		}
		return errors.New("neither a directory nor a tar archive")
	})
}

// scan makes a tree of what index adds to it.
func scan(choice *exclude.Choice, index func(*Tree) error) (*Tree, error) {
	rules, err := exclude.New(choice)
	if err != nil {
		return nil, err
	}
	t := newTree(rules)
	if err = index(t); err == nil {
		err = t.seal()
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *Tree) scanDir(ctx context.Context, dir string, skip []string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	top, err := os.Open(dir)
	if err != nil {
		return err
	}
	t.close = top.Close
	s := &dirScan{ctx: ctx, tree: t, source: &sourceDir{top: top, uid: -1, gid: -1}, skip: make(map[inode]bool), seen: make(map[inode]string), buf: make([]byte, maxAttributes)}
	if s.mounts, s.top, err = mountsBelow(dir); err != nil {
		return err
	}
	// An ordinary user owns all files of a tree he made; in the image they are
	// root's. Trees with several owners come as a tar archive.
	if os.Geteuid() != 0 {
		s.source.uid, s.source.gid = os.Geteuid(), os.Getegid()
	}
	for _, p := range skip {
		var st unix.Stat_t
		if unix.Stat(p, &st) == nil {
			s.skip[inode{st.Dev, st.Ino}] = true
		}
	}
	if err := s.start(); err != nil {
		return err
	}
	if len(s.unreadable) > 0 {
		return fmt.Errorf("%d files cannot be read, the first is %w; run as root, or build from a tar archive", len(s.unreadable), s.unreadable[0])
	}
	return nil
}

type inode struct{ dev, ino uint64 }

// dirScan indexes a directory.
type dirScan struct {
	ctx        context.Context
	tree       *Tree
	source     *sourceDir
	skip       map[inode]bool
	mounts     map[string]mountinfo.Mount // by name
	top        mountinfo.Mount            // what the top directory lies on
	fstab      []mountinfo.Line
	seen       map[inode]string // hard links
	unreadable []error
	buf        []byte // for extended attributes
}

// start indexes the top directory and all below. Of what is mounted there the
// tree's own fstab says whether it belongs to the system.
func (s *dirScan) start() error {
	if c, _, err := s.source.openFile("etc/fstab"); err == nil {
		data, _ := io.ReadAll(io.LimitReader(c.Whole(), 1<<20)) // without it there are the usual places
		s.fstab = mountinfo.ParseTable(data)
		_ = c.Close() // it was only read
	}
	st, err := fstat(s.source.top)
	if err != nil {
		return err
	}
	if e := s.entry(s.source.top, ".", ".", st); e != nil {
		s.tree.add(".", e)
	}
	dir, err := s.source.open(".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	return s.list(dir, ".", st.Dev, exclusion{})
}

// exclusion says what becomes of a directory's content.
type exclusion struct {
	// rule is the one by which it stays out; nil when it is in the tree.
	rule *exclude.Rule
	// count adds to the bytes that are reported of it.
	count func(int64)
}

// list indexes what is in a directory, and closes it.
func (s *dirScan) list(dir *os.File, name string, dev uint64, ex exclusion) error {
	defer dir.Close()
	children, err := dir.Readdirnames(-1)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.cannotRead(name, ex, err)
	}
	slices.Sort(children)
	for _, child := range children {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if err := s.visit(dir, child, path.Join(name, child), dev, ex); err != nil {
			return err
		}
	}
	return nil
}

// cannotRead notes what ends the build, unless it would stay out anyway or went
// away meanwhile.
func (s *dirScan) cannotRead(name string, ex exclusion, err error) {
	switch {
	case ex.rule != nil || errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, ErrNoFile) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP):
		s.tree.Report.Changed(FileChanged, name+": left out, it became something else", 0)
	default:
		s.unreadable = append(s.unreadable, fmt.Errorf("/%s: %w", name, err))
	}
}

func (s *dirScan) visit(dir *os.File, base, name string, dev uint64, ex exclusion) error {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		s.cannotRead(name, ex, err)
		return nil
	}
	if s.skip[inode{st.Dev, st.Ino}] {
		s.tree.Report.LeftOut(exclude.VIVEROutput, name, 0)
		return nil
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	mount, mounted := s.mounts[name]
	foreign := (mounted || isDir && (st.Dev != dev || s.isPlaceholder(&st))) && !(mounted && isSystem(mount, name, s.top, s.fstab))
	ex = s.decide(name, &st, ex, mount, foreign)
	if ex.rule == nil || isDir && (foreign || s.tree.Rules.KeepsBelow(name)) {
		if e := s.entry(dir, base, name, &st); e != nil {
			s.tree.add(name, e)
		}
	}
	if !isDir || foreign && ex.rule != nil || ex.rule != nil && ex.rule.Uncounted && !s.tree.Rules.KeepsBelow(name) {
		return nil
	}
	sub, err := s.source.open(name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		s.cannotRead(name, ex, err)
		return nil
	}
	return s.list(sub, name, st.Dev, ex)
}

// isPlaceholder reports whether an empty directory stands for a subvolume, as a snapshot of a btrfs has
// it of those that are in the original.
func (s *dirScan) isPlaceholder(st *unix.Stat_t) bool {
	const placeholder = 2 // BTRFS_EMPTY_SUBVOL_DIR_OBJECTID
	return s.top.Type == "btrfs" && st.Ino == placeholder
}

// decide says by which rule a file stays out, if by any. Of a directory that stays
// out it is counted as a part, unless it was asked for.
func (s *dirScan) decide(name string, st *unix.Stat_t, above exclusion, m mountinfo.Mount, foreign bool) exclusion {
	rule := above.rule
	if !s.tree.Rules.Applies(rule, name) {
		rule = s.tree.Rules.Match(name)
	}
	label := name
	if foreign && rule == nil {
		if rule = exclude.OtherSystem; isPseudo(m, name) {
			rule = exclude.Recreated
		}
		label = fmt.Sprintf("%s (%s)", name, cmp.Or(m.Type, "subvolume"))
	}
	if rule == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
		rule = exclude.Whiteout
	}
	switch {
	case !s.tree.Rules.Applies(rule, name):
		return exclusion{}
	case rule == above.rule:
		above.count(stored(st))
		return above
	}
	return exclusion{rule, s.tree.Report.LeftOut(rule, label, stored(st))}
}

// stored is what a file takes on its disk, in bytes: of one with holes less than
// its size.
func stored(st *unix.Stat_t) int64 {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0
	}
	return min(st.Size, st.Blocks*512)
}

// entry describes one file; nil for what an image cannot hold, or what is gone.
func (s *dirScan) entry(dir *os.File, base, name string, st *unix.Stat_t) *Entry {
	h := s.source.header(st)
	if h == nil { // a socket
		return nil
	}
	h.Name = name
	if h.Typeflag == tar.TypeSymlink {
		link, err := readlinkAt(dir, base)
		if err != nil {
			s.cannotRead(name, exclusion{}, err)
			return nil
		}
		h.Linkname = link
	}
	if err := s.tree.fit(name, h); err != nil {
		s.tree.Report.Changed(Unsupported, fmt.Sprintf("%s: %v", name, err), h.Size)
		return nil
	}
	e := &Entry{Header: *h, Stored: stored(st)}
	path := procPath(dir, base)
	a, err := readAttributes(s.buf,
		func(b []byte) (int, error) { return unix.Llistxattr(path, b) },
		func(key string, b []byte) (int, error) { return unix.Lgetxattr(path, key, b) })
	if err != nil {
		s.cannotRead(name, exclusion{}, err)
		return nil
	}
	s.tree.setAttributes(name, &e.Header, a)
	id := inode{st.Dev, st.Ino}
	if st.Nlink > 1 && h.Typeflag != tar.TypeDir {
		if first, ok := s.seen[id]; ok {
			e.Header.Typeflag, e.Header.Linkname, e.Header.Size = tar.TypeLink, first, 0
			return e
		}
		s.seen[id] = name
	}
	if h.Typeflag != tar.TypeReg {
		return e
	}
	if err := unix.Faccessat(int(dir.Fd()), base, unix.R_OK, 0); err != nil {
		s.cannotRead(name, exclusion{}, err)
		return nil
	}
	state := st.Ctim
	e.Open = func() (*Content, error) { return s.openFile(name, e, id, state) }
	return e
}

// openFile opens a file that was found before. When it was touched since, or is
// another of the same name, its rights are those that it has now.
func (s *dirScan) openFile(name string, e *Entry, id inode, state unix.Timespec) (*Content, error) {
	c, f, err := s.source.openFile(name)
	if err != nil {
		return nil, err
	}
	st, err := fstat(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if id == (inode{st.Dev, st.Ino}) && state == st.Ctim {
		c.Header = e.Header
		return c, nil
	}
	a, err := readAttributes(make([]byte, maxAttributes), // s.buf is for the scan: files are opened side by side
		func(b []byte) (int, error) { return unix.Flistxattr(int(f.Fd()), b) },
		func(key string, b []byte) (int, error) { return unix.Fgetxattr(int(f.Fd()), key, b) })
	if err == nil {
		err = s.tree.fit(name, &c.Header)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.tree.setAttributes(name, &c.Header, a)
	return c, nil
}

// imageFiles lie in a directory that is an image.
var imageFiles = []string{manifest.File, manifest.Metainfo, manifest.Root}

// excludeOutputs takes earlier images out of the tree: one that was built on the
// machine would be in the next, and both of them in the one after.
func (t *Tree) excludeOutputs() {
	for _, dir := range slices.Sorted(maps.Keys(t.children)) {
		children := t.children[dir]
		whole := !slices.ContainsFunc(imageFiles, func(name string) bool { return !slices.Contains(children, name) })
		if whole || isPart(dir, children) {
			t.exclude(exclude.VIVEROutput, dir)
		}
	}
}

// isPart reports whether a directory is what a killed build has left, of an image
// or, with its settings volume, of a medium.
func isPart(dir string, children []string) bool {
	ok, _ := path.Match(".*"+durable.Suffix, path.Base(dir)) // the pattern is ours
	return ok && slices.ContainsFunc(children, func(name string) bool {
		return name == manifest.Root || name == manifest.Kernel || name == "settings.fat"
	})
}

// excludeSwap takes out the swap files that fstab names.
func (t *Tree) excludeSwap() error {
	if e, err := t.lookup("etc/fstab"); err != nil || e.Open == nil {
		return nil
	}
	data, err := t.ReadFile("etc/fstab")
	if err != nil {
		return err
	}
	for _, l := range mountinfo.ParseTable(data) {
		if name := exclude.Clean(l.Source); l.Type == "swap" && l.Source[0] == '/' && t.entries[name] != nil {
			t.exclude(exclude.Swap, name)
		}
	}
	return nil
}

// exclude takes a file, or a directory with all it holds, out of the tree by a
// rule, unless it was asked for.
func (t *Tree) exclude(r *exclude.Rule, name string) {
	if t.entries[name] == nil || name == "." || !t.Rules.Applies(r, name) {
		return
	}
	count := t.Report.LeftOut(r, name, 0)
	_ = t.walk(func(_ string, e *Entry) error { // nothing in it fails
		if e.Open != nil {
			count(e.Stored)
		}
		return nil
	}).all(name)
	t.prune(name)
}
