package disks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// OS is what this package needs of the machine.
type OS interface {
	Path(name string) string
	Mount(source, target, fstype string, flags uintptr, data string) error
	Unmount(target string, flags int) error
	SetReadOnly(path string) (restore func() error, err error)
	Loop(path string, write bool) (device string, release func() error, err error)
	Space(path string) (free int64, inodes uint64, err error)
}

// Device is a disk or a partition.
type Device struct {
	// Name is the kernel's, e.g. sda1; Path is the device file, e.g. /dev/sda1.
	Name, Path string
	// Disk is the name of the disk it is part of, its own for a whole disk.
	Disk string
	// Size in bytes.
	Size int64
	// ReadOnly: the kernel or a switch on the device forbids writing.
	ReadOnly bool
	// Optical: the medium may be changed, and is never written.
	Optical bool
	// Partitions on it; a disk with partitions holds nothing itself, except
	// for an image that is bootable both as CD and as USB disk.
	Partitions int
	// BesideMedium: the boot medium is mounted from the disk as a whole, so the kernel
	// lets nobody mount a part of it; only a loop device of that part.
	BesideMedium bool
	// Holders: something (RAID, LVM, a mapping) already uses it.
	Holders bool
}

// virtual are devices that are no disks: memory, files, our own root, and what
// the kernel builds from other devices. A floppy drive is no disk either, and
// takes seconds to say that it is empty.
var virtual = []string{"nbd", "loop", "ram", "zram", "dm-", "md", "fd", "mtdblock", "pmem", "ublkb"}

// List returns all disks and partitions, sorted by name.
func List(m interface{ Path(string) string }) ([]Device, error) {
	dir := m.Path("/sys/class/block")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list disks: %w", err)
	}
	var all []Device
	disks := make(map[string]int)
	for _, e := range entries {
		name := e.Name()
		if slices.ContainsFunc(virtual, func(prefix string) bool {
			rest, ok := strings.CutPrefix(name, prefix)
			return ok && (rest == "" || rest[0] >= '0' && rest[0] <= '9')
		}) {
			continue
		}
		path, err := filepath.EvalSymlinks(filepath.Join(dir, name))
		if err != nil {
			continue // it just left
		}
		d := Device{Name: name, Disk: name, Path: "/dev/" + strings.ReplaceAll(name, "!", "/")}
		if _, err := os.Stat(filepath.Join(path, "partition")); err == nil {
			d.Disk = filepath.Base(filepath.Dir(path))
			disks[d.Disk]++
		}
		sectors, _ := strconv.ParseInt(attribute(path, "size"), 10, 64)
		d.Size = sectors * 512 // always in units of 512 bytes
		d.ReadOnly = attribute(path, "ro") == "1"
		d.Optical = strings.HasPrefix(name, "sr")
		holders, _ := os.ReadDir(filepath.Join(path, "holders"))
		d.Holders = len(holders) > 0
		if d.Size > 0 && attribute(path, "hidden") != "1" {
			all = append(all, d)
		}
	}
	for i := range all {
		if all[i].Disk == all[i].Name {
			all[i].Partitions = disks[all[i].Name]
		}
	}
	slices.SortFunc(all, func(a, b Device) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func attribute(dir, name string) string {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// mount mounts what is on a device at dir.
func (d Device) mount(m OS, dir, driver string, flags uintptr, data string) (err error) {
	path := m.Path(d.Path)
	if d.BesideMedium {
		var release func() error
		path, release, err = m.Loop(path, flags&unix.MS_RDONLY == 0)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, release()) }()
	}
	return m.Mount(path, dir, driver, flags, data)
}
