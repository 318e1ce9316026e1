package imagebuild

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// diskFilesystems hold files that belong to an installed system; whatever else
// is mounted inside a source tree is not part of it.
var diskFilesystems = map[string]bool{
	"ext2": true, "ext3": true, "ext4": true, "xfs": true, "btrfs": true, "f2fs": true, "jfs": true,
	"reiserfs": true, "zfs": true, "bcachefs": true, "vfat": true, "erofs": true,
}

// isMadeUp reports whether a file system has no files of anybody's.
func (m mount) isMadeUp(place string) bool {
	return madeUp[m.kind] || m.kind == "tmpfs" && slices.Contains([]string{"dev", "run", "tmp", "var/tmp"}, place)
}

var madeUp = map[string]bool{
	"proc": true, "sysfs": true, "devtmpfs": true, "devpts": true, "mqueue": true, "hugetlbfs": true,
	"cgroup": true, "cgroup2": true, "debugfs": true, "tracefs": true, "securityfs": true, "configfs": true, "pstore": true,
	"bpf": true, "efivarfs": true, "binfmt_misc": true, "autofs": true, "rpc_pipefs": true, "selinuxfs": true, "nsfs": true,
}

// systemPlaces are where parts of a system are mounted without a line in fstab,
// as systemd-gpt-auto-generator does it.
var systemPlaces = []string{"boot", "boot/efi", "efi", "usr", "var", "home", "srv", "opt", "root", "usr/local", "var/log"}

// boundFiles are mounted over those of a container by whoever runs it; the
// system in it needs them.
var boundFiles = []string{"etc/hosts", "etc/hostname", "etc/resolv.conf"}

// mount is one line of /proc/self/mountinfo.
type mount struct {
	device string // major:minor
	root   string // of the file system, the directory that is mounted
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
		list = append(list, mount{device: left[2], root: unescape(left[3]), point: unescape(left[4]), kind: right[0], source: unescape(right[1])})
	}
	return list, s.Err()
}

// mountsBelow returns what is mounted in dir, by its path below dir, and what
// dir itself lies on.
func mountsBelow(dir string) (below map[string]mount, top mount, err error) {
	list, err := mounts()
	if err != nil {
		return nil, mount{}, err
	}
	below = make(map[string]mount)
	for _, m := range list { // later ones cover earlier ones
		rel, err := filepath.Rel(dir, m.point)
		switch {
		case err == nil && rel == ".":
			top = m
		case err == nil && rel != ".." && !strings.HasPrefix(rel, "../"):
			below[rel] = m
		case m.point == "/" || strings.HasPrefix(dir, m.point+"/"):
			if len(m.point) >= len(top.point) {
				top = m
			}
		}
	}
	return below, top, nil
}

// fstabLine is a line of fstab(5) that says something.
type fstabLine struct {
	source, point, kind string
	options             []string
}

func parseFstab(data []byte) []fstabLine {
	var list []fstabLine
	eachLine(data, func(line string) {
		f := strings.Fields(line)
		if len(f) < 3 || strings.HasPrefix(f[0], "#") {
			return
		}
		l := fstabLine{source: unescape(f[0]), point: unescape(f[1]), kind: f[2]}
		if len(f) > 3 {
			l.options = strings.Split(f[3], ",")
		}
		list = append(list, l)
	})
	return list
}

// isSystem reports whether what is mounted at a place of the tree is a part of
// the installed system: the tree's own fstab or custom puts it there, and it is
// neither a file that holds a file system nor a place of the same one.
func (m mount) isSystem(place string, top mount, fstab []fstabLine) bool {
	if slices.Contains(boundFiles, place) {
		return true
	}
	if !diskFilesystems[m.kind] || strings.HasPrefix(m.source, "/dev/loop") && !strings.HasPrefix(top.source, "/dev/loop") {
		return false
	}
	for _, l := range fstab {
		if clean(l.point) == place && strings.HasPrefix(l.point, "/") {
			return !slices.ContainsFunc(l.options, func(o string) bool {
				return o == "bind" || o == "rbind" || o == "loop" || strings.HasPrefix(o, "loop=")
			})
		}
	}
	if m.kind == "zfs" { // its data sets are not in fstab
		pool, _, _ := strings.Cut(top.source, "/")
		return top.kind == "zfs" && strings.HasPrefix(m.source, pool+"/") && !strings.Contains(m.source, "@")
	}
	// Of a btrfs this is a subvolume, of others a directory that is there twice.
	return slices.Contains(systemPlaces, place) && (m.root == "/" || m.kind == "btrfs")
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
