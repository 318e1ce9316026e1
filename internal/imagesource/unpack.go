package imagesource

import (
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"viver.lan/internal/durable"
	"viver.lan/internal/hosttool"
)

// What packed data may ask for. maxMemory is more than xz -9 and zstd --ultra --long=28
// take. A source that unpacks to more than maxRatio times its size, zeros not counted, was
// made to fill disks; the largest ratio of a root file system known is 12.
const (
	maxMemory = 512 << 20
	maxRatio  = 100
	freeRatio = 1 << 30 // below that many bytes nobody asks for the ratio
)

// allowance is how many bytes may still be unpacked of a source, whatever is packed in what.
type allowance int64

func allow(size int64) *allowance {
	a := allowance(max(freeRatio, maxRatio*size))
	return &a
}

func (a *allowance) take(n int64) error {
	if n > int64(*a) {
		return errBomb
	}
	*a -= allowance(n)
	return nil
}

func isCompressed(k Kind) bool {
	switch k {
	case kindGzip, kindXZ, kindZstd, kindBzip2:
		return true
	}
	return false
}

// errCutOff says that compressed data ends before its end.
var errCutOff = errors.New("it ends too early: the file is not whole")

// unpack decompresses into a file without a name on the disk of dir: a killed build
// leaves nothing. Zeros take no room in it, and nothing of room. in is told what was read, may be nil.
func unpack(ctx context.Context, dir string, room *allowance, kind Kind, data *io.SectionReader, in func(n int)) (*os.File, error) {
	f, err := unnamed(dir)
	if err != nil {
		return nil, err
	}
	out := &sparseWriter{f: f, room: room}
	err = decompress(ctx, kind, &countingReader{ctx, data, in}, out)
	if err == nil {
		err = out.end()
	}
	if err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errCutOff
		}
		err = durable.ExplainSpace(fmt.Errorf("unpack %s: %w", kind, err), dir)
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func decompress(ctx context.Context, kind Kind, in io.Reader, out *sparseWriter) error {
	var r io.Reader
	switch kind {
	case kindGzip:
		d, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		r = d
	case kindZstd:
		d, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxMemory), zstd.WithDecoderMaxMemory(maxMemory))
		if err != nil {
			return err
		}
		defer d.Close()
		r = d
	case kindBzip2:
		r = bzip2.NewReader(in)
	case kindXZ:
		return decompressXZ(ctx, in, out)
	default:
		return fmt.Errorf("no compression known as %q", kind)
	}
	_, err := io.Copy(out, r)
	return err
}

// decompressXZ has xz do it, which bounds its memory and is several times faster than
// what there is in Go.
func decompressXZ(ctx context.Context, in io.Reader, out *sparseWriter) error {
	xz, err := hosttool.Find("xz")
	if err != nil {
		return fmt.Errorf("%w: install it (Debian: xz-utils), or unpack the file by other means", err)
	}
	cmd := exec.CommandContext(ctx, xz, "--decompress", "--stdout", fmt.Sprintf("--memlimit-decompress=%d", maxMemory))
	cmd.Stdout = out
	err = hosttool.Feed(ctx, cmd, func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	})
	switch {
	case out.err != nil: // xz says of it that nobody read on
		return out.err
	case err != nil && strings.Contains(err.Error(), "Unexpected end of input"):
		return io.ErrUnexpectedEOF
	}
	return err
}

// countingReader tells how much was read, and ends with its context.
type countingReader struct {
	ctx context.Context
	r   io.Reader
	in  func(n int)
}

func (c *countingReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(b)
	if c.in != nil {
		c.in(n)
	}
	return n, err
}

// unnamed makes a file that has no name and ends with the process.
func unnamed(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir+"/(unpacked source)"), nil
	}
	f, err := os.CreateTemp(dir, ".unpacked-*.part") // a file system that cannot do that
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// sparseWriter writes a file and leaves holes where there are zeros.
type sparseWriter struct {
	f    *os.File
	at   int64 // where the next byte belongs
	room *allowance
	err  error
}

// holeSize is the block that becomes a hole when it is all zeros.
const holeSize = 64 << 10

var errBomb = fmt.Errorf("the source unpacks to more than %d times its own size; if that is right, unpack it by yourself and name what comes out", maxRatio)

func (w *sparseWriter) Write(b []byte) (int, error) {
	for done := 0; done < len(b); {
		part := b[done:min(len(b), done+holeSize-int(w.at%holeSize))]
		if len(bytes.TrimLeft(part, "\x00")) > 0 {
			if w.err = w.room.take(int64(len(part))); w.err != nil {
				return done, w.err
			}
			if _, err := w.f.WriteAt(part, w.at); err != nil {
				w.err = err
				return done, err
			}
		}
		w.at += int64(len(part))
		done += len(part)
	}
	return len(b), nil
}

// end gives the file its size, which may end in a hole.
func (w *sparseWriter) end() error { return w.f.Truncate(w.at) }
