package imagetree

import (
	"archive/tar"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/sparsetar"
)

// ErrNoFile says that there is something else now where a regular file was.
var ErrNoFile = errors.New("it is no regular file any more")

// sourceDir is the top directory of a source. Names are opened below it without
// following a link and without waiting: while a live system is read, a file may
// become a FIFO, or a directory a link that leads elsewhere.
type sourceDir struct {
	top *os.File
	// Owner and group that become root's; -1 when owners are kept.
	uid, gid int
}

// longestPath is how much of a path the kernel takes at once, in bytes.
const longestPath = unix.PathMax - 1

// open opens a name below the top directory.
func (d *sourceDir) open(name string, flags int) (*os.File, error) {
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY
	at, rest := int(d.top.Fd()), name
	for len(rest) > longestPath {
		cut := strings.LastIndexByte(rest[:longestPath], '/')
		if cut <= 0 {
			break
		}
		dir, err := openBelow(at, rest[:cut], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: "/" + name, Err: err}
		}
		defer unix.Close(dir)
		at, rest = dir, rest[cut+1:]
	}
	fd, err := openBelow(at, rest, flags)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openBelow opens a path that leads through no link.
func openBelow(dir int, name string, flags int) (int, error) {
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // something was renamed meanwhile
		case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM): // an old kernel, an old container
			return unix.Openat(dir, name, flags, 0)
		default:
			return fd, err
		}
	}
}

// header describes a file, without its name; nil for what an image cannot hold.
func (d *sourceDir) header(st *unix.Stat_t) *tar.Header {
	h := &tar.Header{
		Mode:    int64(st.Mode & 0o7777),
		Uid:     int(st.Uid),
		Gid:     int(st.Gid),
		ModTime: time.Unix(st.Mtim.Sec, 0),
	}
	if h.Uid == d.uid {
		h.Uid = 0
	}
	if h.Gid == d.gid {
		h.Gid = 0
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		h.Typeflag, h.Size = tar.TypeReg, st.Size
	case unix.S_IFDIR:
		h.Typeflag = tar.TypeDir
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR:
		h.Typeflag = tar.TypeChar
	case unix.S_IFBLK:
		h.Typeflag = tar.TypeBlock
	default:
		return nil
	}
	if h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	return h
}

// openFile opens a regular file, with the header that it has now and without its
// extended attributes.
func (d *sourceDir) openFile(name string) (*Content, *os.File, error) {
	f, err := d.open(name, unix.O_RDONLY)
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) { // a socket, a link
		return nil, nil, ErrNoFile
	}
	if err != nil {
		return nil, nil, err
	}
	st, err := fstat(f)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = ErrNoFile
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	h := d.header(st)
	h.Name = name
	c := &Content{ReaderAt: f, Header: *h, close: f.Close}
	c.changed = func() bool {
		now, err := fstat(f)
		return err != nil || now.Size != st.Size || now.Mtim != st.Mtim
	}
	if st.Blocks*512 < st.Size {
		c.Segments = sparsetar.Worth(dataOf(f, st.Size), st.Size)
	}
	return c, f, nil
}

func fstat(f *os.File) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return &st, nil
}

// dataOf lists where a file has data. A file system that cannot tell has it
// everywhere.
func dataOf(f *os.File, size int64) []sparsetar.Segment {
	var list []sparsetar.Segment
	for at := int64(0); at < size; {
		data, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // nothing but a hole
			return list
		}
		hole := size
		if err == nil {
			hole, err = f.Seek(data, unix.SEEK_HOLE)
		}
		if err != nil || hole <= data {
			return append(list, sparsetar.Segment{Offset: at, Length: size - at})
		}
		hole = min(hole, size)
		if data < hole {
			list = append(list, sparsetar.Segment{Offset: data, Length: hole - data})
		}
		at = hole
	}
	return list
}

// readlinkAt reads a symbolic link.
func readlinkAt(dir *os.File, name string) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: path.Join(dir.Name(), name), Err: err}
	}
	return string(buf[:n]), nil
}
