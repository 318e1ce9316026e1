package blockdev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// probeSize is what Probe reads at either end, in bytes.
const probeSize = 4096

// Probe reads the first and the last block of the device or file at path, past
// the page cache where that is possible, and fails when one cannot be read or
// when the size is not the expected one. A read of a block device cannot be
// cancelled: when ctx ends first, Probe returns its cause, and a goroutine
// stays behind until the read is over.
func Probe(ctx context.Context, path string, size int64) error {
	done := make(chan error, 1)
	go func() { done <- probe(path, size) }()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("probe %s: %w", path, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("probe %s: its first and last block are not there yet: %w", path, context.Cause(ctx))
	}
}

func probe(path string, size int64) error {
	f, err := openDirect(path)
	if err != nil {
		return err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if end != size || size < 512 {
		return fmt.Errorf("it has %d bytes, expected %d", end, size)
	}
	// Side by side: what they wait for may come over a network.
	var ends errgroup.Group
	for _, off := range []int64{0, (size - 1) / probeSize * probeSize} {
		ends.Go(func() error { return readBlock(f, off, min(probeSize, size-off)) })
	}
	return ends.Wait()
}

func readBlock(f *os.File, off, want int64) error {
	n, err := f.ReadAt(alignedBuffer(probeSize), off)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read at %d: %w", off, err)
	}
	if int64(n) != want {
		return fmt.Errorf("read at %d: %d bytes, expected %d", off, n, want)
	}
	return nil
}

// openDirect opens for reading past the page cache, or plainly where the file
// system does not know that.
func openDirect(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		return os.Open(path)
	}
	return f, err
}

// alignedBuffer returns size bytes at an address that direct reads accept.
func alignedBuffer(size int) []byte {
	buf := make([]byte, size+probeSize)
	skip := -uintptr(unsafe.Pointer(&buf[0])) & (probeSize - 1)
	return buf[skip : skip+uintptr(size) : skip+uintptr(size)]
}
