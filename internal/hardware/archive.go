package hardware

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// maxArchive bounds what an archive of modules unpacks to, in bytes.
const maxArchive = 256 << 20

// Unpack adds the files of an archive, as the kernel takes one for an initramfs
// (cpio "newc", packed with zstd or gzip), below root: modules of the kernel called
// release and firmware, and nothing else. What is there already is replaced. After
// an error some of the files may be there, each of them whole.
func Unpack(root *os.Root, release string, archive io.Reader) (files int, err error) {
	plain, closeIt, err := unpacked(archive)
	if err != nil {
		return 0, fmt.Errorf("unpack modules: %w", err)
	}
	defer closeIt()
	limited := &io.LimitedReader{R: plain, N: maxArchive}
	for a := (members{r: bufio.NewReader(limited)}); ; {
		m, err := a.next()
		if err == io.EOF {
			return files, nil
		}
		if err == nil {
			err = m.place(root, release)
		}
		if err != nil && limited.N == 0 {
			err = fmt.Errorf("it holds more than %d bytes", int64(maxArchive))
		}
		if err != nil {
			return files, fmt.Errorf("unpack modules: %w", err)
		}
		if m.mode&unix.S_IFMT == unix.S_IFREG {
			files++
		}
	}
}

// unpacked returns what a compressed stream holds.
func unpacked(archive io.Reader) (plain io.Reader, closeIt func(), err error) {
	r := bufio.NewReader(archive)
	magic, _ := r.Peek(2) // too short is neither
	switch string(magic) {
	case "\x28\xb5":
		// One piece at a time: on a small machine the window is enough to hold.
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, nil, err
		}
		return d, d.Close, nil
	case "\x1f\x8b":
		z, err := gzip.NewReader(r)
		return z, func() {}, err
	}
	return nil, nil, errors.New("neither zstd nor gzip")
}

// place writes a member where the kernel would, if it may be there.
func (m member) place(root *os.Root, release string) error {
	dir := m.mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case !belongs(m.name, release, dir):
		return fmt.Errorf("%q is neither a module of kernel %s nor firmware", m.name, release)
	case dir:
		return root.MkdirAll(m.name, 0o755)
	case m.mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%s is no plain file", m.name)
	}
	if err := root.MkdirAll(path.Dir(m.name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(m.name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, m.data, m.size)
	if err = errors.Join(broken(err), f.Close()); err != nil {
		// Half a module is worse than none.
		return errors.Join(fmt.Errorf("%s: %w", m.name, err), root.Remove(m.name))
	}
	return nil
}

// belongs reports whether a member is a module of the kernel, its firmware, or a
// directory on the way there.
func belongs(name, release string, dir bool) bool {
	if !fs.ValidPath(name) {
		return false
	}
	for _, home := range []string{"lib/modules/" + release + "/", "lib/firmware/"} {
		if strings.HasPrefix(name, home) || dir && strings.HasPrefix(home, name+"/") {
			return true
		}
	}
	return false
}

// members reads an archive in the "newc" format
// (Documentation/driver-api/early-userspace/buffer-format.rst), one member after
// the other.
type members struct {
	r    *bufio.Reader
	last member
}

// member is a file or directory in an archive.
type member struct {
	name string
	mode uint32
	size int64
	data *io.LimitedReader // valid until the next member
}

// maxName is the longest name that the kernel takes (PATH_MAX).
const maxName = 4096

// next returns the next member, and io.EOF after the last one.
func (a *members) next() (member, error) {
	if a.last.data != nil {
		rest := a.last.data.N + padding(a.last.size)
		if _, err := io.CopyN(io.Discard, a.r, rest); err != nil {
			return member{}, broken(err)
		}
	}
	const fields, digits = 13, 8
	var header [6 + fields*digits]byte
	if _, err := io.ReadFull(a.r, header[:]); err != nil {
		return member{}, broken(err)
	}
	if magic := string(header[:6]); magic != "070701" {
		return member{}, fmt.Errorf("a member begins with %q, want 070701", magic)
	}
	var values [fields]uint64
	for i := range values {
		var err error
		if values[i], err = strconv.ParseUint(string(header[6+i*digits:][:digits]), 16, 32); err != nil {
			return member{}, fmt.Errorf("the header of a member: %w", err)
		}
	}
	mode, size, nameSize := values[1], int64(values[6]), int64(values[11])
	if nameSize < 2 || nameSize > maxName {
		return member{}, fmt.Errorf("a name of %d bytes, want 2 to %d", nameSize, maxName)
	}
	name := make([]byte, nameSize+padding(int64(len(header))+nameSize))
	if _, err := io.ReadFull(a.r, name); err != nil {
		return member{}, broken(err)
	}
	a.last = member{name: string(name[:nameSize-1]), mode: uint32(mode), size: size, data: &io.LimitedReader{R: a.r, N: size}}
	if a.last.name == "TRAILER!!!" {
		return member{}, io.EOF
	}
	return a.last, nil
}

// padding is how many bytes follow n of them up to a multiple of four.
func padding(n int64) int64 { return -n & 3 }

// broken says that an archive ends before its trailer.
func broken(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("the archive ends too early")
	}
	return err
}
