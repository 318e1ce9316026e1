// Package mountinfo lists what is mounted, as proc_pid_mountinfo(5) tells it, and what an
// installed Linux wants mounted, as its fstab(5) does.
package mountinfo

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Mount is one mounted file system.
type Mount struct {
	Device string // major:minor
	Root   string // the directory of the file system that is mounted
	Point  string // where
	Type   string // of the file system
	Source string // a device, or what the file system calls it
	// Options are those of the file system, not of the mount.
	Options []string
}

// List returns what is mounted in the namespace of the calling thread, which is mostly that of
// the process; later ones cover earlier ones.
func List() ([]Mount, error) { return read("thread-self") }

// Of returns what is mounted in the namespace of another process.
func Of(pid int) ([]Mount, error) { return read(strconv.Itoa(pid)) }

func read(process string) ([]Mount, error) {
	f, err := os.Open("/proc/" + process + "/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	return parse(f)
}

func parse(r io.Reader) (list []Mount, err error) {
	s := bufio.NewScanner(r)
	for s.Scan() {
		before, after, ok := strings.Cut(s.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 2 {
			continue
		}
		m := Mount{Device: left[2], Root: Unescape(left[3]), Point: Unescape(left[4]), Type: right[0], Source: Unescape(right[1])}
		if len(right) > 2 {
			for o := range strings.SplitSeq(right[2], ",") {
				m.Options = append(m.Options, Unescape(o))
			}
		}
		list = append(list, m)
	}
	return list, s.Err()
}

// Unescape undoes the \ooo that the kernel, and fstab(5), have for blanks and
// backslashes.
func Unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
