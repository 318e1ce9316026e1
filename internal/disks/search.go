package disks

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"viver.lan/internal/media"
)

// Marker is the folder in the root of a file system that offers it to VIVER
// for saved data. Its owner makes it; nothing else ever does.
const Marker = "viver-data"

// HomesDir is the folder in the Marker that offers the disk for the homes of all
// machines of the network (the rune nfs).
const HomesDir = "home"

// CacheMarker is the folder that offers a file system for pieces of images, as
// a cache that may grow to nearly all that is free there.
const CacheMarker = "viver-cache"

// NetworkNameFile is where a saved-data disk keeps the name of the network, in the
// marker.
const NetworkNameFile = "network"

// inspectFlags are the mount flags for reading an unknown file system.
const inspectFlags = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOEXEC

// mountable are the file systems that are searched: the kernel's name, and the
// option that keeps a read-only mount from replaying the journal.
var mountable = map[string]struct{ driver, data string }{
	// The ext4 driver serves all three; with no journal, noload means nothing.
	"ext2": {"ext4", "noload"}, "ext3": {"ext4", "noload"}, "ext4": {"ext4", "noload"},
	"xfs":   {"xfs", "norecovery"},
	"btrfs": {"btrfs", "rescue=nologreplay"},
	"vfat":  {"vfat", ""},
	"exfat": {"exfat", ""},
	"ntfs":  {"ntfs3", ""},
}

// tables are the modules of the tables without which the FAT driver mounts nothing. It asks
// for them by name when it mounts, also where it is built into the kernel and they are not.
var tables = []string{"nls_cp437", "nls_iso8859_1", "nls_ascii", "nls_utf8"}

// Drivers returns the modules that Search needs for the file systems that it would mount,
// each once, and the names of the disks that did not answer before ctx ended: what is on
// those is not known.
func Drivers(ctx context.Context, m OS) (names, silent []string, err error) {
	devices, err := List(m)
	if err != nil {
		return nil, nil, err
	}
	devices = slices.DeleteFunc(devices, func(d Device) bool { return d.Optical || d.Holders || d.Partitions > 0 })
	p := prober{os: m}
	for i, a := range p.probe(ctx, devices) {
		how, known := mountable[a.fs.Type]
		switch {
		case errors.Is(a.err, errSilent):
			silent = append(silent, devices[i].Name)
		case a.err == nil && known && !a.fs.Container && !slices.Contains(names, how.driver):
			names = append(names, how.driver)
			if how.driver == "vfat" {
				names = append(names, tables...)
			}
		}
	}
	return names, silent, nil
}

// Found is a file system with a marker.
type Found struct {
	Device Device
	FS     Superblock
	// Images are the digests of the images that have data in the marker.
	Images []string
	// Kept are small files that a node keeps in the marker beside the images, by
	// name: NetworkNameFile, and keys.
	Kept map[string][]byte
	// Homes: the marker has a folder HomesDir.
	Homes bool
	// Refusal is why the disk is left alone although it is marked; empty if
	// it may be written.
	Refusal string
}

// Survey is the result of a search.
type Survey struct {
	// Found are the file systems with a Marker, Caches those with a CacheMarker,
	// each by device name.
	Found, Caches []Found
	// Notes are sentences about disks that were ignored.
	Notes []string
}

// seen is one device during a search.
type seen struct {
	Device
	fs     Superblock
	marked bool
	cache  bool
	images []string
	kept   map[string][]byte
	homes  bool
}

// Search looks for the markers on all disks. Of the disk that is the boot medium (the name
// of the whole disk, or "") only a file system that was made for saved data counts: what
// else is on a stick is not ours. Each file system is write-protected
// in the kernel, mounted read-only at dir, read and unmounted again. When ctx ends,
// disks that did not answer are ignored, with a note.
func Search(ctx context.Context, m OS, dir, medium string) (Survey, error) {
	devices, err := List(m)
	if err != nil {
		return Survey{}, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Survey{}, fmt.Errorf("search disks: %w", err)
	}
	defer os.Remove(dir)

	var s Survey
	var all []seen
	p := prober{os: m}
	for i, a := range p.probe(ctx, devices) {
		switch d := devices[i]; {
		case a.err == nil:
			d.BesideMedium = d.Disk == medium
			all = append(all, seen{Device: d, fs: a.fs})
		case !d.Optical: // an empty drive needs no note
			s.note("%s was not looked into: %v", d.Name, a.err)
		}
	}
	// Where a system is hibernated, by disk name: in a swap space, or in a file, which
	// only inspect finds.
	asleep := make(map[string]string)
	// Disks that belong to an array as a whole, with all their partitions.
	members := make(map[string]bool)
	for _, d := range all {
		if d.fs.Hibernated {
			asleep[d.Disk] = "swap space " + d.Name
		}
		members[d.Disk] = members[d.Disk] || d.Name == d.Disk && (d.fs.Container || d.Holders)
	}
	for i := range all {
		d := &all[i]
		how, known := mountable[d.fs.Type]
		switch {
		case d.Optical || d.BesideMedium && d.fs.Label != media.DataLabel:
			continue
		case d.fs.Container || d.Holders || members[d.Disk]:
			s.note("%s is part of something larger (RAID, LVM or an encrypted volume) and is left alone", d.Name)
			continue
		case !known || d.Partitions > 0:
			continue
		case ctx.Err() != nil:
			s.note("%s was not looked into: the search took too long", d.Name)
			continue
		}
		swapFile, err := d.inspect(m, dir, how.driver, how.data)
		if err != nil {
			s.note("%s was not looked into: %v", d.Name, err)
		}
		if swapFile != "" {
			asleep[d.Disk] = fmt.Sprintf("file %s on %s", swapFile, d.Name)
		}
	}
	for _, d := range all {
		if d.cache {
			s.Caches = append(s.Caches, Found{Device: d.Device, FS: d.fs, Refusal: refusal(d, asleep)})
		}
		if d.marked {
			s.Found = append(s.Found, Found{Device: d.Device, FS: d.fs, Images: d.images, Kept: d.kept, Homes: d.homes, Refusal: refusal(d, asleep)})
		}
	}
	for disk, where := range asleep {
		s.note("a hibernated system sleeps in %s: disk %s is left alone", where, disk)
	}
	slices.Sort(s.Notes)
	return s, nil
}

func (s *Survey) note(format string, args ...any) {
	s.Notes = append(s.Notes, fmt.Sprintf(format, args...))
}

// inspect mounts the file system, reads what there is to know, and unmounts it.
func (d *seen) inspect(m OS, dir, driver, data string) (swapFile string, err error) {
	path := m.Path(d.Path)
	// A read-only mount is a promise that some drivers keep with exceptions:
	// ext4 frees orphaned inodes, for one. The block layer makes none.
	restore, err := m.SetReadOnly(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, restore()) }()
	if err := d.mount(m, dir, driver, inspectFlags, data); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, m.Unmount(dir, 0)) }()

	// Root keeps symbolic links on an unknown disk from leading elsewhere.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if info, err := root.Lstat(Marker); err == nil && info.IsDir() {
		d.marked = true
		names := markerNames(root)
		d.images, d.kept = imageDirs(names), keptFiles(root, names)
		info, err := root.Lstat(filepath.Join(Marker, HomesDir))
		d.homes = err == nil && info.IsDir()
	}
	if info, err := root.Lstat(CacheMarker); err == nil && info.IsDir() {
		d.cache = true
	}
	return hibernatedFile(root), nil
}

// markerNames lists what lies in the marker.
func markerNames(root *os.Root) []string {
	f, err := root.Open(Marker)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(1000) // a node makes fewer
	slices.Sort(names)
	return names
}

func imageDirs(names []string) (images []string) {
	for _, n := range names {
		if _, err := hex.DecodeString(n); err == nil && len(n) == 64 {
			images = append(images, n)
		}
	}
	return images
}

// maxKept bounds the size of a small file in the marker, in bytes.
const maxKept = 4 << 10

// keptFiles reads the small files in the marker.
func keptFiles(root *os.Root, names []string) map[string][]byte {
	kept := make(map[string][]byte)
	for _, n := range names {
		path := filepath.Join(Marker, n)
		if info, err := root.Lstat(path); err != nil || !info.Mode().IsRegular() || info.Size() > maxKept {
			continue
		}
		if n != NetworkNameFile && !strings.HasPrefix(n, "identity-") {
			continue
		}
		if data, err := root.ReadFile(path); err == nil && len(data) <= maxKept {
			kept[n] = data
		}
	}
	return kept
}

// hibernatedFile returns the name of a swap file with a hibernated system. The
// names are those that installers use.
func hibernatedFile(root *os.Root) string {
	for _, name := range []string{"swapfile", "swap.img", "swap/swapfile", ".swapfile"} {
		info, err := root.Lstat(name)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		f, err := root.Open(name)
		if err != nil {
			continue
		}
		sb, ok := probeSwap(&device{r: f, size: info.Size()})
		f.Close()
		if ok && sb.Hibernated {
			return name
		}
	}
	return ""
}

// refusal decides whether a marked file system may be written; the answer is a
// sentence without its subject.
func refusal(d seen, asleep map[string]string) string {
	switch where, hibernated := asleep[d.Disk]; {
	case hibernated:
		return "a hibernated system sleeps in " + where + " and must find its disk as it left it"
	case len(asleep) > 0 && !d.fs.Clean:
		// The hibernated system may have this one mounted, too. Only a file system that
		// says it was unmounted is surely not.
		return "a hibernated system sleeps on another disk and may have this one in use"
	case d.ReadOnly:
		return "the disk is write-protected"
	case d.fs.Errors:
		return "its file system has errors and needs fsck"
	case d.fs.Obstacle != "":
		return d.fs.Obstacle
	}
	return ""
}
