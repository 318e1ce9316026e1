// Package rootfs makes the root file system of an image: it streams a tree to
// mksquashfs(1) as a tar archive. Going through tar keeps owners without being
// root, and what stays out of the image never leaves this process.
//
// On the way it empties or replaces what belongs to one machine, and finds by their
// content the files that package exclude cannot know by name: swap space, media,
// private keys. The source may be a running system; a file that changes
// while it is read is read again, or reported.
//
// The invariant: the same tree gives the same bytes.
package rootfs

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"viver.lan/internal/exclude"
	"viver.lan/internal/hosttool"
	"viver.lan/internal/imagetree"
	"viver.lan/internal/sparsetar"
)

// Options say how a tree is packed.
type Options struct {
	// Level of zstd.
	Level int
	// Separate gives each file blocks of its own. Else small files, and the ends of
	// others, share blocks (fragments).
	Separate bool
}

func (o Options) arguments() []string {
	a := []string{"-comp", "zstd", "-Xcompression-level", strconv.Itoa(o.Level)}
	if o.Separate {
		a = append(a, "-no-fragments")
	}
	return a
}

// Write compresses a tree to the file out: the contents in the order of Tree.Walk,
// because mksquashfs sorts none that come from an archive (-sort, -action). It tells
// progress how many bytes of the tree's files it has read, and how many there are.
func Write(ctx context.Context, tree *imagetree.Tree, out string, o Options, progress func(done, total int64)) error {
	program, err := exec.LookPath("mksquashfs")
	if err != nil {
		return errors.New("mksquashfs is not installed: install squashfs-tools 4.5 or later")
	}
	// mksquashfs takes the root directory's mode from its arguments only.
	root, err := tree.Stat(".")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"-", out, "-tar",
		"-noappend", "-exit-on-error", "-no-progress", "-quiet", "-no-recovery",
		"-root-mode", strconv.FormatInt(root.Sys().(*tar.Header).Mode&0o7777, 8)}, o.arguments()...)...)
	// mksquashfs takes the present time for its own stamp and for the root
	// directory, unless it is told of a latest.
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(tree.Latest().Unix(), 10))
	cmd.SysProcAttr = asRoot(os.Geteuid(), os.Getegid())
	err = hosttool.Feed(ctx, cmd, func(w io.Writer) error { return writeTar(ctx, tree, w, filepath.Dir(out), progress) })
	var start *fs.PathError
	if errors.As(err, &start) && start.Path == program && errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("an ordinary user needs user namespaces to give the root directory to root, and this system forbids them (%w): run as root", err)
	}
	return err
}

// asRoot has an ordinary user's mksquashfs run as root of a user namespace: given
// a tar, mksquashfs 4.5 makes whoever runs it the owner of the root directory,
// whatever its options say.
func asRoot(uid, gid int) *syscall.SysProcAttr {
	if uid == 0 {
		return nil
	}
	return &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}},
	}
}

// copySize is how much of a file is read and written at once, in bytes.
const copySize = 256 << 10

// writeTar writes the tree in the order of Tree.Walk. Copies of files that change meanwhile are
// made in the directory spool.
func writeTar(ctx context.Context, tree *imagetree.Tree, w io.Writer, spool string, progress func(done, total int64)) error {
	out := bufio.NewWriterSize(w, copySize) // mksquashfs is awake at every write to its pipe
	s := tarStream{tree: tree, ctx: ctx, out: out, w: tar.NewWriter(out), spool: spool, progress: progress, total: tree.Size(),
		copyBuffer: make([]byte, copySize), names: make(map[string]string)}
	if err := reportSecrets(tree); err != nil {
		return err
	}
	_ = tree.Walk(func(_ string, e *imagetree.Entry) error { // nothing in it fails
		if e.Header.Typeflag == tar.TypeLink {
			s.names[e.Header.Linkname] = ""
		}
		return nil
	})
	if err := tree.Walk(s.add); err != nil {
		return err
	}
	if err := cmp.Or(s.w.Flush(), out.Flush()); err != nil {
		return err
	}
	// The end of an archive is two blocks of zeros. Package tar writes them one by
	// one, and mksquashfs may be gone after the first.
	_, err := w.Write(make([]byte, 2*sparsetar.BlockSize))
	return err
}

// dropped stands for the name of a file that has none in the image.
const dropped = "\x00"

type tarStream struct {
	tree        *imagetree.Tree
	ctx         context.Context
	out         io.Writer // below w, for what package tar does not write
	w           *tar.Writer
	spool       string
	progress    func(done, total int64)
	done, total int64
	// names has the files with several names: the first of them that was written, ""
	// before, and dropped of one that was left out.
	names map[string]string
	// buffer holds a small file while it is written, copyBuffer a part of any.
	buffer, copyBuffer []byte
}

func (s *tarStream) add(name string, e *imagetree.Entry) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	h := e.Header
	h.Name = name
	open := e.Open
	data, err := s.replacement(name, e)
	if err != nil {
		return err
	}
	if data != nil {
		h.Size = int64(len(data))
		replaced := h
		open = func() (*imagetree.Content, error) { return imagetree.Stable(replaced, bytes.NewReader(data), nil), nil }
	}
	file := name
	switch h.Typeflag {
	case tar.TypeDir:
		h.Name += "/"
		_, err := s.writeHeader(&h)
		return err
	case tar.TypeLink:
		// The file itself may come later or be left out: this name carries it.
		file = h.Linkname
		real := s.tree.Target(e)
		if real == nil || real.Header.Typeflag == tar.TypeDir || real.Header.Typeflag == tar.TypeLink {
			s.tree.Report.Changed(imagetree.Unsupported, fmt.Sprintf("%s: it is a hard link to /%s, which is no file of the source", name, file), 0)
			return nil
		}
		h, open = real.Header, real.Open
		h.Name = name
	}
	return s.addFile(&h, file, open)
}

// writeHeader writes a header. What package tar finds wrong with it, an odd name
// or attribute, costs the file and not the image.
func (s *tarStream) writeHeader(h *tar.Header) (written bool, err error) {
	err = s.w.WriteHeader(h)
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) {
		s.tree.Report.Changed(imagetree.Unsupported, fmt.Sprintf("%s: %v", h.Name, err), h.Size)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("/%s: %w", h.Name, err)
	}
	return true, nil
}

// addFile writes anything but a directory under the name in h; file is the one
// that all its names lead to.
func (s *tarStream) addFile(h *tar.Header, file string, open func() (*imagetree.Content, error)) (err error) {
	first, several := s.names[file]
	if first == dropped {
		return nil
	}
	if first != "" {
		_, err = s.writeHeader(&tar.Header{Typeflag: tar.TypeLink, Name: h.Name, Linkname: first})
		return err
	}
	var written bool
	if open == nil {
		written, err = s.writeHeader(h)
	} else {
		written, err = s.writeFile(h.Name, open)
	}
	if several {
		if s.names[file] = dropped; written {
			s.names[file] = h.Name
		}
	}
	return err
}

func (s *tarStream) writeFile(name string, open func() (*imagetree.Content, error)) (written bool, err error) {
	c, err := s.openStable(name, open)
	if c == nil || err != nil {
		return false, err
	}
	defer c.Close()
	h := c.Header
	h.Name = name
	if rule := s.matchContent(name, c); rule != nil {
		s.tree.Report.LeftOut(rule, name, h.Size)
		return false, nil
	}
	secret, err := isKey(c)
	if err != nil {
		return false, fmt.Errorf("read /%s: %w", name, err)
	}
	if secret {
		s.tree.Report.Emptied(exclude.SigningKey, name, h.Size)
		h.Size = 0
		return s.writeHeader(&h)
	}
	if c.Segments != nil {
		written, err = s.writeSparse(&h, c)
	} else if written, err = s.writeHeader(&h); written && err == nil {
		err = s.copy(s.w, &h, c, c.Whole(), h.Size)
	}
	if written && err == nil && c.Changed() {
		s.tree.Report.Changed(imagetree.FileChanged, name+": its content may mix old and new", 0)
	}
	s.done += h.Size
	s.progress(s.done, s.total)
	return written, err
}

// writeSparse writes a file with holes, which package tar does not.
func (s *tarStream) writeSparse(h *tar.Header, c *imagetree.Content) (bool, error) {
	if err := s.w.Flush(); err != nil {
		return false, err
	}
	if err := sparsetar.WriteHeader(s.out, h, c.Segments); err != nil {
		return false, err
	}
	r, size := c.Stored()
	if err := s.copy(s.out, h, c, r, size); err != nil {
		return true, err
	}
	_, err := io.CopyN(s.out, zeros{}, -size&(sparsetar.BlockSize-1))
	return true, err
}

// copy writes size bytes of a file: what it lacks of them by now is zeros. An archive
// lacks none, unless it was cut off meanwhile.
func (s *tarStream) copy(w io.Writer, h *tar.Header, c *imagetree.Content, r io.Reader, size int64) error {
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, &interruptible{s.ctx, r}, s.copyBuffer)
	if err != nil {
		return fmt.Errorf("read /%s: %w", h.Name, err)
	}
	if n < size && c.IsStable() {
		return fmt.Errorf("read /%s: the source had %d bytes of it and now has %d: it was cut off while it was read; build again", h.Name, size, n)
	}
	if n < size {
		s.tree.Report.Changed(imagetree.FileChanged, h.Name+": it shrank, the rest is zeros", size-n)
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

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
