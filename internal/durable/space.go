package durable

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// ExplainSpace turns a full disk into a sentence that says what to do.
func ExplainSpace(err error, dir string) error {
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	return fmt.Errorf("the disk of %s is full (%d MiB free, nothing was kept): make room or choose another output: %w", dir, Free(dir)>>20, err)
}

// Free returns the bytes that may still be written to the disk of dir, 0 when
// that cannot be told.
func Free(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0
	}
	return int64(st.Bavail) * st.Bsize
}
