package bootmedium

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"viver.lan/internal/disks"
	"viver.lan/internal/media"
	"viver.lan/internal/mountinfo"
)

// device is what sysfs knows about a whole disk or a partition.
type device struct {
	name      string
	numbers   []string // major:minor of the device and its partitions
	parts     []string // the partitions, with their sizes, for people
	partition bool
	size      int64
	removable bool
	usb       bool
	model     string
	holders   []string // what is stacked on it: device mapper, RAID
}

func (d device) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %d MiB", d.model, d.size>>20))
}

// readDevice reads /sys/dev/block/MAJOR:MINOR below the given root.
func readDevice(sys string, major, minor uint32) (device, error) {
	number := fmt.Sprintf("%d:%d", major, minor)
	dir, err := filepath.EvalSymlinks(filepath.Join(sys, "dev/block", number))
	if err != nil {
		return device{}, fmt.Errorf("no such block device in sysfs: %w", err)
	}
	word := func(name string) string {
		data, _ := os.ReadFile(filepath.Join(dir, name)) // absent means empty
		return strings.TrimSpace(string(data))
	}
	sectors, err := strconv.ParseInt(word("size"), 10, 64)
	if err != nil {
		return device{}, fmt.Errorf("size: %w", err)
	}
	d := device{
		name:      filepath.Base(dir),
		numbers:   []string{number},
		partition: word("partition") != "",
		size:      sectors * 512,
		// A hard disk in a USB case says that it is not removable, and may be
		// somebody's only copy of something.
		removable: word("removable") == "1",
		usb:       strings.Contains(dir, "/usb"),
		model:     strings.TrimSpace(word("device/vendor") + " " + word("device/model")),
	}
	holders, _ := filepath.Glob(filepath.Join(dir, "holders/*"))
	parts, _ := filepath.Glob(filepath.Join(dir, d.name+"*/partition"))
	for _, p := range parts {
		more, _ := filepath.Glob(filepath.Join(filepath.Dir(p), "holders/*"))
		holders = append(holders, more...)
		data, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "dev"))
		d.numbers = append(d.numbers, strings.TrimSpace(string(data)))
		data, _ = os.ReadFile(filepath.Join(filepath.Dir(p), "size"))
		n, _ := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64) // absent means empty
		d.parts = append(d.parts, fmt.Sprintf("%s %d MiB", filepath.Base(filepath.Dir(p)), n*512>>20))
	}
	for _, h := range holders {
		d.holders = append(d.holders, filepath.Base(h))
	}
	return d, nil
}

// inUse lists what this machine has mounted, and the devices that it swaps to as
// if they were mounted on "swap".
func inUse() ([]mountinfo.Mount, error) {
	list, err := mountinfo.List()
	if err != nil {
		return nil, err
	}
	for i, m := range list {
		// Some file systems have numbers of their own, unlike their devices.
		if number := deviceNumber(m.Source); number != "" {
			list[i].Device = number
		}
	}
	swaps, err := os.ReadFile("/proc/swaps")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list swap: %w", err)
	}
	for line := range strings.Lines(string(swaps)) {
		if f := strings.Fields(line); len(f) > 0 {
			if number := deviceNumber(mountinfo.Unescape(f[0])); number != "" {
				list = append(list, mountinfo.Mount{Device: number, Point: swapPoint})
			}
		}
	}
	return list, nil
}

const swapPoint = "swap"

// deviceNumber returns a block device's numbers, "" when it is none.
func deviceNumber(name string) string {
	var st unix.Stat_t
	if !strings.HasPrefix(name, "/") || unix.Stat(name, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return ""
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
}

// mayWrite decides whether a medium of the given size may replace what is on
// the device.
func (d device) mayWrite(list []mountinfo.Mount, size int64, force bool) error {
	for _, m := range list {
		switch {
		case !slices.Contains(d.numbers, m.Device):
		case m.Point == swapPoint:
			return errors.New("this machine swaps to it; swapoff first")
		default:
			return fmt.Errorf("it is mounted on %s; unmount it first", m.Point)
		}
	}
	switch {
	case len(d.holders) > 0:
		return fmt.Errorf("it is in use by %s", strings.Join(d.holders, ", "))
	case d.partition:
		return errors.New("it is a partition; a medium takes the whole device")
	case d.size < size:
		return fmt.Errorf("it is too small: the medium has %d MiB", size>>20)
	case !d.removable && !force:
		return d.notAStick()
	}
	return nil
}

// notAStick says what is on a device that may be more than a stick.
func (d device) notAStick() error {
	what := "it is not removable, so it may be a disk of this machine"
	if d.usb {
		what = "it is a disk on USB and no stick, so somebody may need what is on it"
	}
	if len(d.parts) > 0 {
		what += ": " + strings.Join(d.parts, ", ")
	}
	return fmt.Errorf("%s; --yes writes to it all the same, and all of that is lost", what)
}

// contents says what is on a stick, for people; nothing for an empty one. A medium of ours
// may be replaced without a question, and its saved data is kept: then only what somebody
// else put there counts.
func contents(r io.ReaderAt, size int64) []string {
	whole, err := disks.Probe(r, size)
	if err != nil {
		return []string{fmt.Sprintf("what cannot be read: %v", err)}
	}
	list, _ := media.Partitions(r, size) // none is as good as an unreadable one
	others, medium := list, false
	was := whole.Type == "iso9660" && whole.Label == media.Label
	if was {
		others, medium = notOurs(r, size, list)
	}
	var names []string
	for _, p := range others {
		fs, _ := disks.Probe(io.NewSectionReader(r, p.Offset, p.Size), p.Size) // likewise
		names = append(names, fmt.Sprintf("partition %d (%s, %d MiB)", p.Number, fileSystem(fs), p.Size/mib))
	}
	switch {
	case len(names) > 0 || medium:
		return names
	case was:
		return []string{"data of an unknown kind where a medium was"}
	}
	begin := make([]byte, min(size, head))
	if _, err := r.ReadAt(begin, 0); whole.Type != "" || err != nil || len(bytes.Trim(begin, "\x00")) > 0 {
		return []string{fileSystem(whole)}
	}
	return nil
}

// notOurs returns the partitions of a stick that are neither a medium's own nor saved data
// that is kept, and whether there is a medium. Its volume label proves little: it survives
// a new partition table and some file systems. But a medium has a copy of its own table
// where it ends, and no other partitions.
func notOurs(r io.ReaderAt, size int64, list []media.Partition) (others []media.Partition, medium bool) {
	var own []media.Partition
	if end, err := media.ISOSize(r); err == nil && end <= size {
		own, _ = media.BackupPartitions(r, end) // none: then all are others
	}
	data, kept := findData(r, size)
	for _, p := range list {
		same := func(o media.Partition) bool { return o.Offset == p.Offset && o.Size == p.Size }
		switch {
		case slices.ContainsFunc(own, same):
			medium = true
		case kept && same(data):
		default:
			others = append(others, p)
		}
	}
	return others, medium
}

func fileSystem(fs disks.Superblock) string {
	return strings.TrimSpace(cmp.Or(fs.Type, "data of an unknown kind") + " " + fs.Label)
}
