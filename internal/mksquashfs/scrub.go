package mksquashfs

import (
	"archive/tar"
	"bytes"
	"slices"
	"strings"

	"viver.lan/internal/exclude"
	"viver.lan/internal/imagetree"
)

// replacement returns what a file holds in the image, nil when that is what it
// holds in the source.
func (s *tarStream) replacement(name string, e *imagetree.Entry) ([]byte, error) {
	switch {
	case e.Header.Typeflag != tar.TypeReg:
		return nil, nil
	case name == "etc/fstab":
		data, err := s.tree.ReadFile(name)
		return scrubFstab(data), err
	case slices.Contains(exclude.Emptied.Patterns, name) && s.tree.Rules.Applies(exclude.Emptied, name):
		// Empty, not absent: systemd fills an empty machine-id and does not take
		// the boot for a first installation.
		if e.Header.Size > 0 {
			s.tree.Report.Emptied(exclude.Emptied, name, e.Stored)
		}
		return []byte{}, nil
	}
	return nil, nil
}

// sharedFilesystems are the types in fstab that mean the same on every machine.
var sharedFilesystems = map[string]bool{
	"nfs": true, "nfs4": true, "cifs": true, "9p": true, "ceph": true, "glusterfs": true, "fuse.sshfs": true,
	"tmpfs": true, "proc": true, "sysfs": true, "devpts": true, "debugfs": true, "hugetlbfs": true, "mqueue": true,
}

// scrubFstab keeps the lines of fstab(5) that mean the same on every machine:
// a diskless node that waits for its maker's disks does not boot.
func scrubFstab(data []byte) []byte {
	out := []byte{}
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) >= 3 && !strings.HasPrefix(fields[0], "#") && (!sharedFilesystems[fields[2]] || fields[1] == "/") {
			out = append(out, "# not on a diskless node: "...)
		}
		out = append(out, line...)
	}
	return out
}
