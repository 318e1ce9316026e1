package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"time"

	"viver.lan/internal/sleep"
)

// hangWait is how long a thread must wait in the kernel to count as one that hangs: each
// does for moments.
const hangWait = time.Second

// hangs reports whether a thread of this process hangs in the kernel, such as in a read of
// a dead disk, which the search for marked disks has given up. execve(2) ends all other
// threads and waits for them.
func (n *node) hangs(ctx context.Context) bool {
	for end := time.Now().Add(hangWait); ; {
		if !n.waitsInKernel() {
			return false
		}
		if time.Now().After(end) || sleep.For(ctx, hangWait/20) != nil {
			return true
		}
	}
}

// waitsInKernel reports whether a thread is in the state D of proc_pid_stat(5), in which
// no signal reaches it.
func (n *node) waitsInKernel() bool {
	threads, _ := filepath.Glob(n.host.Path("/proc/self/task/*/stat")) // the pattern is ours
	for _, name := range threads {
		stat, _ := os.ReadFile(name) // the thread may have ended
		if end := bytes.LastIndex(stat, []byte(") ")); end >= 0 && bytes.HasPrefix(stat[end:], []byte(") D")) {
			return true
		}
	}
	return false
}
