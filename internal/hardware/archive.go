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
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"viver.lan/internal/newc"
)

// maxArchive bounds what an archive of modules unpacks to, in bytes.
const maxArchive = 256 << 20

// Unpack adds the files of archives, as the kernel takes them for an initramfs
// (cpio "newc", packed with zstd or gzip, one behind the other), below root: modules of
// the kernel called release and firmware, and nothing else. What is there already is
// replaced. After an error some of the files may be there, each of them whole.
func Unpack(root *os.Root, release string, archives io.Reader) (files int, err error) {
	plain, closeIt, err := unpacked(archives)
	if err != nil {
		return 0, fmt.Errorf("unpack modules: %w", err)
	}
	defer closeIt()
	limited := &io.LimitedReader{R: plain, N: maxArchive}
	for r := bufio.NewReader(limited); ; {
		n, err := unpackOne(root, release, r)
		files += n
		if err == nil {
			err = skipZeros(r)
		}
		if err == io.EOF {
			return files, nil
		}
		if err != nil && limited.N == 0 {
			err = fmt.Errorf("it holds more than %d bytes", int64(maxArchive))
		}
		if err != nil {
			return files, fmt.Errorf("unpack modules: %w", err)
		}
	}
}

// unpackOne adds the files of the archive that comes next.
func unpackOne(root *os.Root, release string, r *bufio.Reader) (files int, err error) {
	for a := newc.NewReader(r); ; {
		m, err := a.Next()
		if err == io.EOF {
			return files, nil
		}
		if err == nil {
			err = place(m, root, release)
		}
		if err != nil {
			return files, err
		}
		if m.Mode&unix.S_IFMT == unix.S_IFREG {
			files++
		}
	}
}

// skipZeros skips the padding between archives; io.EOF is that no other one follows.
func skipZeros(r *bufio.Reader) error {
	for {
		b, err := r.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return r.UnreadByte()
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
func place(m newc.Member, root *os.Root, release string) error {
	dir := m.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case !belongs(m.Name, release, dir):
		return fmt.Errorf("%q is neither a module of kernel %s nor firmware", m.Name, release)
	case dir:
		return root.MkdirAll(m.Name, 0o755)
	case m.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%s is no plain file", m.Name)
	}
	if err := root.MkdirAll(path.Dir(m.Name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(m.Name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = m.WriteTo(f)
	if err = errors.Join(err, f.Close()); err != nil {
		// Half a module is worse than none.
		return errors.Join(fmt.Errorf("%s: %w", m.Name, err), root.Remove(m.Name))
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
