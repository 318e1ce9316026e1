package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"viver.lan/qemu-tests/guests/execproto"
)

func cmdDropCaches(context.Context, execproto.Request, io.Writer, io.Writer) error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

// cmdSHA256 reads a block device with O_DIRECT, past the page cache; anything
// else after the caches were dropped, as far as we may.
func cmdSHA256(ctx context.Context, req execproto.Request, stdout, _ io.Writer) error {
	path, err := arg(req, 1)
	if err != nil {
		return err
	}
	size, err := number(req, 2, math.MaxInt64)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	flags := os.O_RDONLY
	if info.Mode().Type() == os.ModeDevice {
		flags |= unix.O_DIRECT
	} else if err := cmdDropCaches(ctx, req, nil, nil); err != nil && !errors.Is(err, os.ErrPermission) {
		return err
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	sum, read, err := digest(ctx, f, size)
	if err != nil {
		return fmt.Errorf("%s: after %d bytes: %w", path, read, err)
	}
	if len(req.Argv) > 2 && read < size {
		return fmt.Errorf("%s ends after %d bytes, want %d", path, read, size)
	}
	_, err = fmt.Fprintln(stdout, sum)
	return err
}

// digest hashes up to size bytes. It reads whole blocks into memory aligned as
// O_DIRECT wants it.
func digest(ctx context.Context, r io.Reader, size int64) (sum string, read int64, err error) {
	buf, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return "", 0, err
	}
	defer func() { err = errors.Join(err, unix.Munmap(buf)) }()
	h := sha256.New()
	for read < size {
		if err := ctx.Err(); err != nil {
			return "", read, err
		}
		n, err := r.Read(buf)
		n = int(min(int64(n), size-read))
		h.Write(buf[:n])
		read += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", read, err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), read, nil
}

func cmdRead(_ context.Context, req execproto.Request, stdout, _ io.Writer) error {
	path, err := arg(req, 1)
	if err != nil {
		return err
	}
	offset, err := number(req, 2, 0)
	if err != nil {
		return err
	}
	length, err := number(req, 3, execproto.MaxOutput+1) // one more, so that it counts as truncated
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if offset > 0 {
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			return err
		}
	}
	_, err = io.Copy(stdout, io.LimitReader(f, length))
	return err
}

func cmdWrite(_ context.Context, req execproto.Request, _, _ io.Writer) error {
	path, err := arg(req, 1)
	if err != nil {
		return err
	}
	mode := uint64(0o644)
	if len(req.Argv) > 2 {
		if mode, err = strconv.ParseUint(req.Argv[2], 8, 12); err != nil {
			return fmt.Errorf("mode %q: %w", req.Argv[2], err)
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, os.FileMode(mode))
	if err != nil {
		return err
	}
	_, err = f.Write(req.Stdin)
	if err == nil {
		err = f.Sync()
	}
	if errors.Is(err, unix.EINVAL) {
		err = nil // /proc and /sys know no sync
	}
	return errors.Join(err, f.Close())
}

func cmdList(_ context.Context, req execproto.Request, stdout, _ io.Writer) error {
	path, err := arg(req, 1)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(stdout)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // gone since
		}
		entry := execproto.Entry{Name: e.Name(), Mode: info.Mode().String(), Size: info.Size()}
		if info.Mode()&os.ModeSymlink != 0 {
			entry.Link, _ = os.Readlink(path + "/" + e.Name()) // gone since, too
		}
		if err := enc.Encode(entry); err != nil {
			return err
		}
	}
	return nil
}

func arg(req execproto.Request, i int) (string, error) {
	if len(req.Argv) <= i {
		return "", fmt.Errorf("%s: argument %d is missing", req.Argv[0], i)
	}
	return req.Argv[i], nil
}

func number(req execproto.Request, i int, absent int64) (int64, error) {
	if len(req.Argv) <= i {
		return absent, nil
	}
	n, err := strconv.ParseInt(req.Argv[i], 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s: argument %d is %q, want a number of bytes", req.Argv[0], i, req.Argv[i])
	}
	return n, nil
}
