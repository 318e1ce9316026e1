package imagesource

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"viver.lan/internal/mountinfo"
)

// inUse refuses a disk that is mounted: its files change while they are read, and the kernel
// has changes that the disk has not.
func inUse(device string) error {
	link, err := deviceLink(device)
	if err != nil {
		return err
	}
	ours, err := filepath.EvalSymlinks(link)
	if err != nil {
		return err
	}
	list, err := users()
	if err != nil {
		return err
	}
	for _, u := range list {
		if uses(u.device, ours) {
			return fmt.Errorf("it is in use, %s; name the directory where it is mounted, or unmount it", u.how)
		}
	}
	return nil
}

// user is a file system that is mounted, with a block device that it uses.
type user struct {
	device string // a link to its directory in /sys/devices
	how    string // for people
}

// users lists who uses block devices. A mount of a btrfs has a number that is of no device, and a
// btrfs may have many devices.
func users() (list []user, err error) {
	mounts, err := mountinfo.List()
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		how := "mounted at " + m.Point
		list = append(list, user{"/sys/dev/block/" + m.Device, how})
		if link, err := deviceLink(m.Source); err == nil {
			list = append(list, user{link, how})
		}
	}
	links, err := filepath.Glob("/sys/fs/btrfs/*/devices/*")
	for _, link := range links {
		list = append(list, user{link, "a part of a btrfs that is mounted"})
	}
	return list, err
}

// deviceLink is where sysfs has a block device.
func deviceLink(name string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: name, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "", fmt.Errorf("%s is no block device", name)
	}
	return fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

// madeOf is the directory of a device in sysfs with links to those that it is made of.
const madeOf = "slaves"

// uses reports whether a device is ours, which is a disk or a partition, or lies on it, or is made
// of such ones, as the devices of LVM, RAID and encryption are.
func uses(device, ours string) bool {
	at, err := filepath.EvalSymlinks(device)
	if err != nil { // no block device, such as a tmpfs
		return false
	}
	if at == ours || strings.HasPrefix(at, ours+"/") {
		return true
	}
	parts, _ := filepath.Glob(filepath.Join(at, madeOf, "*")) // the pattern is right
	for _, part := range parts {
		if uses(part, ours) {
			return true
		}
	}
	return false
}
