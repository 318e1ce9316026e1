package imagebuild

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"viver.lan/internal/sparsetar"
)

// writeSquashfs streams the tree as a tar archive into mksquashfs, which
// compresses it to the file out. Going through tar keeps owners without being
// root, and what must not travel never leaves this process.
func (t *Tree) writeSquashfs(ctx context.Context, out string, level int, advance func(int64)) error {
	program, err := exec.LookPath("mksquashfs")
	if err != nil {
		return errors.New("mksquashfs is not installed: install squashfs-tools 4.5 or later")
	}
	t.spool = filepath.Dir(out)
	replace, err := t.replacements()
	if err != nil {
		return err
	}
	// mksquashfs takes the root directory's mode from its arguments only.
	root := t.entries["."].header
	cmd := exec.CommandContext(ctx, program, "-", out, "-tar", "-comp", "zstd", "-Xcompression-level", strconv.Itoa(level),
		"-noappend", "-exit-on-error", "-no-progress", "-quiet", "-no-recovery",
		"-root-mode", strconv.FormatInt(root.Mode&0o7777, 8))
	// The same tree gives the same bytes: mksquashfs takes the present time for
	// its own stamp and for the root directory, unless it is told of a latest.
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(t.latest(), 10))
	cmd.SysProcAttr = squashfsProcess(os.Geteuid(), os.Getegid())
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		if cmd.SysProcAttr.Cloneflags != 0 && errors.Is(err, syscall.EPERM) {
			return fmt.Errorf("an ordinary user needs user namespaces to give the root directory to root, and this system forbids them (%w): run as root", err)
		}
		return fmt.Errorf("mksquashfs: %w", err)
	}
	return feed(ctx, cmd, stdin, &said, "mksquashfs", func(w io.Writer) error { return t.writeTar(ctx, w, replace, advance) })
}

// squashfsProcess puts mksquashfs into a process group of its own: Ctrl-C
// reaches us, and we end it. An ordinary user's runs as root of a user
// namespace: given a tar, mksquashfs 4.5 makes whoever runs it the owner of the
// root directory, whatever its options say.
func squashfsProcess(uid, gid int) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if uid != 0 {
		attr.Cloneflags = syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	return attr
}

// writeTar writes the tree in name order.
func (t *Tree) writeTar(ctx context.Context, w io.Writer, replace map[string][]byte, advance func(int64)) error {
	s := tarStream{tree: t, ctx: ctx, out: w, w: tar.NewWriter(w), replace: replace, advance: advance, first: make(map[string]string), gone: make(map[string]bool)}
	if err := t.walk(".", s.add); err != nil {
		return err
	}
	if err := s.w.Flush(); err != nil {
		return err
	}
	// The end of an archive is two blocks of zeros. Package tar writes them one by
	// one, and mksquashfs may be gone after the first.
	_, err := w.Write(make([]byte, 2*sparsetar.BlockSize))
	return err
}

type tarStream struct {
	tree    *Tree
	ctx     context.Context
	out     io.Writer // below w, for what package tar does not write
	w       *tar.Writer
	replace map[string][]byte
	advance func(int64)
	// first maps a file to the first of its names that was written, gone holds
	// those that came to nothing.
	first map[string]string
	gone  map[string]bool
	// buffer holds a small file while it is written.
	buffer []byte
}

func (s *tarStream) add(name string, e *entry) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	h := e.header
	h.Name = name
	open := e.open
	if data, ok := s.replace[name]; ok && h.Typeflag == tar.TypeReg {
		h.Size = int64(len(data))
		replaced := h
		open = func() (*content, error) { return steady(replaced, bytes.NewReader(data)), nil }
	}
	file := name
	switch h.Typeflag {
	case tar.TypeDir:
		h.Name += "/"
		_, err := s.writeHeader(&h)
		return err
	case tar.TypeLink:
		// The file itself may come later or be left out: this name carries it.
		file = clean(h.Linkname)
		real := s.tree.target(e)
		if real == nil || real.header.Typeflag == tar.TypeDir || real.header.Typeflag == tar.TypeLink {
			s.tree.report.change(notHeld, fmt.Sprintf("%s: it is a hard link to /%s, which is no file of the source", name, file), 0)
			return nil
		}
		h, open = real.header, real.open
		h.Name = name
	}
	return s.addFile(&h, file, open)
}

// writeHeader writes a header. What package tar finds wrong with it, an odd name
// or attribute, costs the file and not the image.
func (s *tarStream) writeHeader(h *tar.Header) (written bool, err error) {
	err = s.w.WriteHeader(h)
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) {
		s.tree.report.change(notHeld, fmt.Sprintf("%s: %v", h.Name, err), h.Size)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("/%s: %w", h.Name, err)
	}
	return true, nil
}

// addFile writes anything but a directory under the name in h; file is the one
// that all its names lead to.
func (s *tarStream) addFile(h *tar.Header, file string, open func() (*content, error)) (err error) {
	if first := s.first[file]; first != "" {
		_, err = s.writeHeader(&tar.Header{Typeflag: tar.TypeLink, Name: h.Name, Linkname: first})
		return err
	}
	if s.gone[file] {
		return nil
	}
	var written bool
	if open == nil {
		written, err = s.writeHeader(h)
	} else {
		written, err = s.writeFile(h.Name, open)
	}
	if written {
		s.first[file] = h.Name
	} else {
		s.gone[file] = true
	}
	return err
}

func (s *tarStream) writeFile(name string, open func() (*content, error)) (written bool, err error) {
	c, err := s.settled(name, open)
	if c == nil || err != nil {
		return false, err
	}
	defer c.Close()
	h := c.header
	h.Name = name
	if rule := s.byContent(name, c); rule != nil {
		s.tree.report.leave(rule, name, h.Size)
		return false, nil
	}
	secret, err := isKey(c)
	if err != nil {
		return false, fmt.Errorf("read /%s: %w", name, err)
	}
	if secret {
		s.tree.note("emptied /%s: it is a key that signs images, and an image is no secret", name)
		h.Size = 0
		return s.writeHeader(&h)
	}
	if c.segments != nil {
		written, err = s.writeSparse(&h, c)
	} else if written, err = s.writeHeader(&h); written && err == nil {
		err = s.copy(s.w, &h, c.whole(), h.Size)
	}
	if written && err == nil && c.changed() {
		s.tree.report.change(fileChanged, name+": what it holds may be of two times", 0)
	}
	s.advance(h.Size)
	return written, err
}

// writeSparse writes a file with holes, which package tar does not.
func (s *tarStream) writeSparse(h *tar.Header, c *content) (bool, error) {
	if err := s.w.Flush(); err != nil {
		return false, err
	}
	if err := sparsetar.WriteHeader(s.out, h, c.segments); err != nil {
		return false, err
	}
	r, size := c.stored()
	if err := s.copy(s.out, h, r, size); err != nil {
		return true, err
	}
	_, err := io.CopyN(s.out, zeros{}, -size&(sparsetar.BlockSize-1))
	return true, err
}

// copy writes size bytes of a file: what it lacks of them by now is zeros.
func (s *tarStream) copy(w io.Writer, h *tar.Header, r io.Reader, size int64) error {
	n, err := io.Copy(w, &interruptible{s.ctx, r})
	if err != nil {
		return fmt.Errorf("read /%s: %w", h.Name, err)
	}
	if n < size {
		s.tree.report.change(fileChanged, h.Name+": it shrank, the rest is zeros", size-n)
	}
	_, err = io.CopyN(w, zeros{}, size-n)
	return err
}

// interruptible ends a long file when the build is to end.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}

// size is the sum of all contents, for the progress bar.
func (t *Tree) size() int64 {
	var n int64
	for _, e := range t.entries {
		if e.open != nil {
			n += e.header.Size
		}
	}
	return n
}

// latest is the newest modification time in the tree, in Unix seconds.
func (t *Tree) latest() int64 {
	var latest int64
	for _, e := range t.entries {
		latest = max(latest, e.header.ModTime.Unix())
	}
	return latest
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
