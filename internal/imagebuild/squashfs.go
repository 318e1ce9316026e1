package imagebuild

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"viver.lan/internal/sign"
)

// writeSquashfs streams the tree as a tar archive into mksquashfs, which
// compresses it to the file out. Going through tar keeps owners without being
// root, and what must not travel never leaves this process.
func (t *Tree) writeSquashfs(ctx context.Context, out string, level int, advance func(int64)) error {
	program, err := exec.LookPath("mksquashfs")
	if err != nil {
		return errors.New("mksquashfs is not installed: install squashfs-tools 4.5 or later")
	}
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

// writeTar writes the tree in name order. A live system changes while it is
// read: a file that went away is left out, one that shrank is padded.
func (t *Tree) writeTar(ctx context.Context, w io.Writer, replace map[string][]byte, advance func(int64)) error {
	s := tarStream{tree: t, ctx: ctx, w: tar.NewWriter(w), replace: replace, advance: advance, first: make(map[string]string)}
	if err := t.walk(".", s.add); err != nil {
		return err
	}
	return s.w.Close()
}

type tarStream struct {
	tree    *Tree
	ctx     context.Context
	w       *tar.Writer
	replace map[string][]byte
	advance func(int64)
	// first maps a file to the first of its names that was written.
	first map[string]string
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
		open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	}
	switch h.Typeflag {
	case tar.TypeDir:
		h.Name += "/"
	case tar.TypeReg:
		if first := s.first[name]; first != "" {
			h, open = tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: first}, nil
			break
		}
		s.first[name] = name
	case tar.TypeLink:
		target := clean(h.Linkname)
		if first := s.first[target]; first != "" {
			h.Linkname = first
			break
		}
		// The file itself comes later or is left out: this name carries it.
		real := s.tree.target(e)
		if real == nil {
			return fmt.Errorf("/%s is a hard link to /%s, which is not in %s", name, target, s.tree.Source)
		}
		s.first[target] = name
		h = real.header
		h.Name, open = name, real.open
	}
	if open == nil {
		return s.w.WriteHeader(&h)
	}
	return s.addFile(&h, open)
}

func (s *tarStream) addFile(h *tar.Header, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if errors.Is(err, fs.ErrNotExist) {
		s.tree.note("left out /%s: it went away while the tree was read", h.Name)
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	content, err := s.withoutKey(h, r)
	if err != nil {
		return err
	}
	if err := s.w.WriteHeader(h); err != nil {
		return fmt.Errorf("/%s: %w", h.Name, err)
	}
	n, err := io.Copy(s.w, io.LimitReader(content, h.Size))
	if err != nil {
		return fmt.Errorf("read /%s: %w", h.Name, err)
	}
	if n < h.Size {
		s.tree.note("/%s shrank while the tree was read: the rest is zeros", h.Name)
		if _, err := io.CopyN(s.w, zeros{}, h.Size-n); err != nil {
			return err
		}
	}
	s.advance(h.Size)
	return nil
}

// withoutKey returns what is written of a file: all of it, or nothing when it
// is a key that signs images. The image goes to everyone on the network, and
// may be built from the very machine where the key lies.
func (s *tarStream) withoutKey(h *tar.Header, r io.Reader) (io.Reader, error) {
	if h.Size > sign.MaxKeySize {
		return r, nil
	}
	data, err := io.ReadAll(io.LimitReader(r, h.Size))
	if err != nil {
		return nil, fmt.Errorf("read /%s: %w", h.Name, err)
	}
	if sign.IsPrivateKey(data) {
		s.tree.note("emptied /%s: it is a key that signs images, and an image is no secret", h.Name)
		h.Size, data = 0, nil
	}
	return bytes.NewReader(data), nil
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
