package imagetree

import (
	"path/filepath"
	"slices"
	"strings"

	"viver.lan/internal/exclude"
	"viver.lan/internal/mountinfo"
)

// diskFilesystems hold files that belong to an installed system; whatever else
// is mounted inside a source tree is not part of it.
var diskFilesystems = map[string]bool{
	"ext2": true, "ext3": true, "ext4": true, "xfs": true, "btrfs": true, "f2fs": true, "jfs": true,
	"reiserfs": true, "zfs": true, "bcachefs": true, "vfat": true, "erofs": true,
}

// isPseudo reports whether the kernel provides the files of a file system, or every
// boot makes them.
func isPseudo(m mountinfo.Mount, place string) bool {
	return pseudoFilesystems[m.Type] || m.Type == "tmpfs" && slices.Contains([]string{"dev", "run", "tmp", "var/tmp"}, place)
}

var pseudoFilesystems = map[string]bool{
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

// mountsBelow returns what is mounted in dir, by its path below dir, and what
// dir itself lies on.
func mountsBelow(dir string) (below map[string]mountinfo.Mount, top mountinfo.Mount, err error) {
	list, err := mountinfo.List()
	if err != nil {
		return nil, mountinfo.Mount{}, err
	}
	below = make(map[string]mountinfo.Mount)
	for _, m := range list { // later ones cover earlier ones
		rel, err := filepath.Rel(dir, m.Point)
		switch {
		case err == nil && rel == ".":
			top = m
		case err == nil && rel != ".." && !strings.HasPrefix(rel, "../"):
			below[rel] = m
		case m.Point == "/" || strings.HasPrefix(dir, m.Point+"/"):
			if len(m.Point) >= len(top.Point) {
				top = m
			}
		}
	}
	return below, top, nil
}

// isSystem reports whether what is mounted at a place of the tree is a part of
// the installed system: the tree's own fstab or custom puts it there, and it is
// neither a file that holds a file system nor a place of the same one.
func isSystem(m mountinfo.Mount, place string, top mountinfo.Mount, table []mountinfo.Line) bool {
	if slices.Contains(boundFiles, place) {
		return true
	}
	if !diskFilesystems[m.Type] || strings.HasPrefix(m.Source, "/dev/loop") && !strings.HasPrefix(top.Source, "/dev/loop") {
		return false
	}
	if strings.HasPrefix(m.Root, "/ostree/deploy/") { // of Fedora Silverblue and its like: /etc, /usr, /var
		return true
	}
	for _, l := range table {
		if exclude.Clean(l.Point) == place && strings.HasPrefix(l.Point, "/") {
			return !slices.ContainsFunc(l.Options, func(o string) bool {
				return o == "bind" || o == "rbind" || o == "loop" || strings.HasPrefix(o, "loop=")
			})
		}
	}
	if m.Type == "zfs" { // its data sets are not in fstab
		pool, _, _ := strings.Cut(top.Source, "/")
		return top.Type == "zfs" && strings.HasPrefix(m.Source, pool+"/") && !strings.Contains(m.Source, "@")
	}
	// Of a btrfs this is a subvolume, of others a directory that is there twice.
	return slices.Contains(systemPlaces, place) && (m.Root == "/" || m.Type == "btrfs")
}
