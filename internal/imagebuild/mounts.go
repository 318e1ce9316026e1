package imagebuild

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// diskFilesystems hold files that belong to an installed system; whatever else
// is mounted inside a source tree is not part of it.
var diskFilesystems = map[string]bool{
	"ext2": true, "ext3": true, "ext4": true, "xfs": true, "btrfs": true, "f2fs": true, "jfs": true,
	"reiserfs": true, "zfs": true, "bcachefs": true, "vfat": true, "overlay": true, "erofs": true,
}

// mount is one line of /proc/self/mountinfo.
type mount struct {
	device string // major:minor
	point  string
	kind   string // file system type
	source string
}

// mounts lists what is mounted in this process's namespace.
func mounts() ([]mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	var list []mount
	s := bufio.NewScanner(f)
	for s.Scan() {
		before, after, ok := strings.Cut(s.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 2 {
			continue
		}
		list = append(list, mount{device: left[2], point: unescape(left[4]), kind: right[0], source: unescape(right[1])})
	}
	return list, s.Err()
}

// foreignMounts returns the mount points inside dir whose content is no part
// of an installed system, with their file system type.
func foreignMounts(dir string) (map[string]string, error) {
	list, err := mounts()
	if err != nil {
		return nil, err
	}
	foreign := make(map[string]string)
	for _, m := range list {
		inside := dir == "/" || m.point == dir || strings.HasPrefix(m.point, dir+"/")
		if inside && !diskFilesystems[m.kind] {
			foreign[m.point] = m.kind
		}
	}
	return foreign, nil
}

// unescape undoes the \ooo that mountinfo writes for blanks and backslashes.
func unescape(s string) string {
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
