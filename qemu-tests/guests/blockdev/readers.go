package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const block = 4096

// readRandom reads count blocks of the device with that many readers, past the
// page cache, and checks every byte.
func readRandom(v *volume, readers, count int) error {
	r := startReaders(v, readers, int64(count))
	return r.wait()
}

// readers keep reading until they are stopped or have read enough.
type readers struct {
	all     sync.WaitGroup
	stopped atomic.Bool
	left    atomic.Int64
	done    atomic.Int64 // blocks read and found right

	mu   sync.Mutex
	errs []error
}

func startReaders(v *volume, n int, count int64) *readers {
	r := &readers{}
	r.left.Store(count)
	for range n {
		r.all.Go(func() {
			if err := r.read(v); err != nil {
				r.mu.Lock()
				r.errs = append(r.errs, err)
				r.mu.Unlock()
			}
		})
	}
	return r
}

func (r *readers) read(v *volume) error {
	f, err := os.OpenFile("/dev/nbd0", os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := aligned()
	for !r.stopped.Load() && r.left.Add(-1) >= 0 {
		off := rand.Int64N(volumeSize/block) * block
		if _, err := f.ReadAt(buf, off); err != nil {
			return fmt.Errorf("read at %d: %w", off, err)
		}
		if err := v.check(buf, off); err != nil {
			return err
		}
		r.done.Add(1)
	}
	return nil
}

// stop lets each reader finish the read it is in.
func (r *readers) stop() error {
	r.stopped.Store(true)
	return r.wait()
}

func (r *readers) wait() error {
	r.all.Wait()
	return errors.Join(r.errs...)
}

// aligned returns one block at an address that direct reads accept.
func aligned() []byte {
	buf := make([]byte, 2*block)
	skip := -uintptr(unsafe.Pointer(&buf[0])) & (block - 1)
	return buf[skip : skip+block]
}

// dropCaches makes the next reads come from the device again.
func dropCaches() error {
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0)
}

// treeDigest reads every file below dir and returns one digest of them all.
func treeDigest(dir string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		n, err := io.Copy(sum, f)
		fmt.Fprintln(sum, path, n)
		return err
	})
	return fmt.Sprintf("%x", sum.Sum(nil)), err
}
