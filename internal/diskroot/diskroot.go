// Package diskroot finds the installed Linux on a disk, a partition or an image of one, and has it
// mounted with what its own fstab puts in it.
//
// Partitions and file systems are found by partx and blkid, of util-linux; the kernel
// mounts them. Where volumes of LVM and the data of a mirror lie, pvck and mdadm read from copies of the
// headers; cryptsetup opens LUKS. Nothing is written, no journal is replayed: what is mounted are loop devices that
// refuse writes. No group of LVM is activated and no RAID assembled. The invariant: the mounts are in a
// namespace of one thread, so they end with the process, as the devices do that only they use, and
// nobody else sees them.
package diskroot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"viver.lan/internal/distribution"
	"viver.lan/internal/hosttool"
	"viver.lan/internal/mountinfo"
	"viver.lan/internal/thread"
)

// Root is an installed Linux, mounted.
type Root struct {
	// Kind says where on the disk it is.
	Kind string
	// Notes are for people: what its fstab wants and the disk has not, and the like.
	Notes []string

	root   string // where it is mounted, for those who look through mounts
	mounts *thread.Mounts
}

// candidate is a place with an installed Linux.
type candidate struct {
	volume volume
	// subvolume of a btrfs, "" for the one that is mounted when none is named.
	subvolume string
	name      string // of its distribution
}

// ref is what --root takes for it.
func (c candidate) ref() string {
	if c.subvolume == "" {
		return c.volume.ref()
	}
	return c.volume.ref() + ":" + c.subvolume
}

// String names it to people.
func (c candidate) String() string {
	s := c.ref() + " (" + c.volume.fsType
	if c.volume.label != "" {
		s += fmt.Sprintf(" %q", c.volume.label)
	}
	return s + ", " + cmp.Or(c.name, unnamed) + ")"
}

// Open mounts the Linux on a disk. dir is a directory of the caller's, of which only
// those who look through Do see that something is mounted there.
func Open(ctx context.Context, file *os.File, dir string, o Options) (*Root, error) {
	volumes, err := listVolumes(ctx, file)
	if err != nil {
		return nil, err
	}
	r := &Root{root: filepath.Join(dir, rootDir)}
	r.mounts, err = thread.OpenMounts(dir, func() error { return r.open(ctx, volumes, dir, o) })
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Do runs f where the Linux is mounted, at the directory that f is told. Files that it
// opens can be read anywhere, until Close.
func (r *Root) Do(f func(dir string) error) error {
	return r.mounts.Do(func() error { return f(r.root) })
}

// Close unmounts it.
func (r *Root) Close() error { return r.mounts.Close() }

// Where things are mounted, below the directory of the caller.
const (
	tryDir  = "try"
	rootDir = "root"
)

func (r *Root) open(ctx context.Context, volumes []volume, dir string, o Options) (err error) {
	if err := errors.Join(os.Mkdir(filepath.Join(dir, tryDir), 0o700), os.Mkdir(r.root, 0o700)); err != nil {
		return err
	}
	d := newDisk()
	s := &stack{run: hosttool.Output, passphrase: o.Passphrase, disk: d}
	// What is mounted keeps the devices.
	defer func() { err = errors.Join(err, s.close(), d.close()) }()
	if err := s.unstack(ctx, volumes); err != nil {
		return err
	}
	list, failures := d.search(ctx, s.volumes, dir)
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := choose(list, s.volumes, append(s.failures, failures...), o.Root)
	if err != nil {
		return err
	}
	if err := d.mount(c.volume, dir, rootDir, subvolume(c.subvolume)); err != nil {
		return err
	}
	r.Kind, r.Notes = c.String(), s.notes
	for _, err := range s.failures {
		r.Notes = append(r.Notes, fmt.Sprintf("warning: not read: %v", err))
	}
	if c.volume.number > 0 && c.volume.lv == "" {
		r.Kind = "partition " + r.Kind
	}
	if note := unclean(c.volume); note != "" {
		r.Notes = append(r.Notes, note)
	}
	return r.mountTable(ctx, d, s.volumes, r.root)
}

// subvolume is the option that mounts one.
func subvolume(name string) string {
	if name == "" {
		return ""
	}
	return "subvol=/" + name
}

// search looks for a Linux in each volume, and says why which could not be looked into.
func (d *disk) search(ctx context.Context, volumes []volume, dir string) (list []candidate, failures []error) {
	for _, v := range volumes {
		if _, _, ok := mountOptions(v.fsType); !ok || ctx.Err() != nil {
			continue
		}
		found, err := d.findIn(v, dir)
		if err != nil {
			failures = append(failures, err)
		}
		list = append(list, found...)
	}
	return list, failures
}

func (d *disk) findIn(v volume, dir string) (list []candidate, err error) {
	try := filepath.Join(dir, tryDir)
	look := func(option string, do func()) error {
		if err := d.mount(v, dir, tryDir, option); err != nil {
			return err
		}
		do()
		return unix.Unmount(try, unix.MNT_DETACH)
	}
	err = look("", func() {
		if name, ok := linuxIn(try); ok {
			list = append(list, candidate{volume: v, name: name})
		}
	})
	if err != nil || v.fsType != "btrfs" || len(list) > 0 {
		return list, err
	}
	const topLevel = "subvolid=5"
	return list, look(topLevel, func() {
		children, _ := os.ReadDir(try) // what cannot be read has no root
		for _, child := range children {
			if strings.Contains(child.Name(), ",") { // it would be several options of a mount
				continue
			}
			if name, ok := linuxIn(filepath.Join(try, child.Name())); ok {
				list = append(list, candidate{v, child.Name(), name})
			}
		}
	})
}

// linuxIn reports whether a directory is the root of an installed Linux, and of which.
func linuxIn(dir string) (name string, ok bool) {
	if fi, err := os.Lstat(dir); err != nil || !fi.IsDir() { // a link could lead into this machine's
		return "", false
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", false
	}
	defer root.Close()
	if fi, err := root.Lstat("etc"); err != nil || !fi.IsDir() {
		return "", false
	}
	for _, file := range distribution.Files() {
		if _, err := root.Lstat(file); err == nil { // a link may lead into a /usr that is elsewhere
			return distribution.Of(linux(dir)).Name, true
		}
	}
	return "", false
}

// choose takes the candidate that was asked for; else there has to be one only.
func choose(list []candidate, volumes []volume, failures []error, which string) (candidate, error) {
	var found []candidate
	for _, c := range list {
		if which == "" || which == c.ref() {
			found = append(found, c)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return candidate{}, fmt.Errorf("it has several installed Linuxes; choose one with --root:%s", bullets(found))
	case len(list) > 0:
		return candidate{}, fmt.Errorf("it has no installed Linux --root %s; there are:%s", which, bullets(list))
	case len(volumes) == 0:
		return candidate{}, errors.New("its partition table is empty")
	}
	var lines []string
	for _, v := range volumes {
		lines = append(lines, v.String()+hint(v.fsType))
	}
	return candidate{}, errors.Join(append([]error{fmt.Errorf("no installed Linux is on it (none has /etc and os-release):%s", bullets(lines))}, failures...)...)
}

func bullets[T any](list []T) string {
	var b strings.Builder
	for _, item := range list {
		fmt.Fprintf(&b, "\n  - %v", item)
	}
	return b.String()
}

// What blkid calls what a file system may lie in.
const (
	typeLUKS = "crypto_LUKS"
	typeLVM  = "LVM2_member"
	typeRAID = "linux_raid_member"
)

// hint says how what is not mounted here becomes a source.
func hint(fsType string) string {
	switch fsType {
	case typeLUKS:
		return ", encrypted; its passphrase opens it, in a file: --passphrase-file FILE"
	case typeLVM:
		return ", of a volume group"
	case typeRAID:
		return ", of a software RAID"
	case "zfs_member":
		return ", of a pool; import it (zpool import -o readonly=on -R /mnt POOL) and name /mnt"
	case "ntfs", "BitLocker", "exfat":
		return ", of Windows"
	}
	return ""
}

// unclean says of a file system whose journal has changes that they are not seen.
func unclean(v volume) string {
	head := make([]byte, superblockEnd)
	if _, err := v.file.ReadAt(head, v.offset); err != nil || !needsRecovery(head) {
		return ""
	}
	return "warning: the file system was in use or not shut down cleanly; what is in its journal only is not in the image. Start that system, shut it down and build again"
}

// mountTable mounts what the Linux's own fstab puts into it.
func (r *Root) mountTable(ctx context.Context, d *disk, volumes []volume, root string) error {
	text, _ := linux(root).ReadFile("etc/fstab") // without one there is nothing to mount, and what can be read is a table, too
	table := mountinfo.ParseTable(text)
	slices.SortStableFunc(table, func(a, b mountinfo.Line) int { return strings.Count(a.Point, "/") - strings.Count(b.Point, "/") })
	keys, _ := linux(root).ReadFile("etc/crypttab")
	crypttab := parseCrypttab(keys)
	rootDisk := ""
	for i, l := range table {
		if uuid := crypttab[l.Source]; uuid != "" {
			table[i].Source = inLUKS + uuid
		}
		if l.Point == "/" {
			rootDisk, _ = splitDevice(l.Source)
		}
	}
	for _, l := range table {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !belongs(l) {
			continue
		}
		if err := d.mountLine(volumes, l, rootDisk, root); err != nil {
			r.Notes = append(r.Notes, fmt.Sprintf("warning: what /etc/fstab puts at %s is not in the image: %v", l.Point, err))
		}
	}
	return nil
}

// belongs reports whether a line puts a part of the system into its place: a file system of a disk.
func belongs(l mountinfo.Line) bool {
	_, _, ok := mountOptions(l.Type)
	if !ok && l.Type != "auto" || !strings.HasPrefix(l.Point, "/") || filepath.Clean(l.Point) == "/" || l.Has("bind") || l.Has("rbind") || l.Has("loop") {
		return false
	}
	// Some distributions mount these only when they change a kernel.
	return !l.Has("noauto") || slices.Contains([]string{"/boot", "/boot/efi", "/efi"}, filepath.Clean(l.Point))
}

func (d *disk) mountLine(volumes []volume, l mountinfo.Line, rootDisk, root string) error {
	at := slices.IndexFunc(volumes, func(v volume) bool { return v.is(l.Source, rootDisk) })
	if _, number := splitDevice(l.Source); at < 0 && number > 0 && rootDisk == "" {
		return fmt.Errorf("nothing tells whether %s is on this disk; name it by UUID in its fstab", l.Source)
	}
	if at < 0 {
		return fmt.Errorf("%s is not on this disk", l.Source)
	}
	var options []string
	for _, o := range l.Options {
		if volumes[at].fsType == "btrfs" && (strings.HasPrefix(o, "subvol=") || strings.HasPrefix(o, "subvolid=")) {
			options = append(options, o)
		}
	}
	err := d.mount(volumes[at], root, strings.TrimPrefix(filepath.Clean(l.Point), "/"), strings.Join(options, ","))
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("the root has no such directory")
	}
	return err
}
