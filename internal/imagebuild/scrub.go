package imagebuild

import (
	"bufio"
	"bytes"
	"strings"
)

// replacements returns the files whose content is not the source's, for those
// that the source has.
func (t *Tree) replacements() (map[string][]byte, error) {
	// Empty, not absent: systemd fills an empty machine-id and does not take
	// the boot for a first installation.
	r := map[string][]byte{}
	for _, name := range emptied.patterns {
		e := t.entries[name]
		if e == nil || e.open == nil || !t.rules.applies(emptied, name) {
			continue
		}
		if e.header.Size > 0 {
			t.report.empty(emptied, name, e.stored)
		}
		r[name] = []byte{}
	}
	if t.isFile("etc/fstab") {
		data, err := t.readFile("etc/fstab")
		if err != nil {
			return nil, err
		}
		r["etc/fstab"] = scrubFstab(data)
	}
	return r, nil
}

// travellingFilesystems are the fstab types that are the same on every machine.
var travellingFilesystems = map[string]bool{
	"nfs": true, "nfs4": true, "cifs": true, "9p": true, "ceph": true, "glusterfs": true, "fuse.sshfs": true,
	"tmpfs": true, "proc": true, "sysfs": true, "devpts": true, "debugfs": true, "hugetlbfs": true, "mqueue": true,
}

// scrubFstab keeps the lines of fstab(5) that mean the same on every machine:
// a diskless node that waits for its maker's disks does not boot.
func scrubFstab(data []byte) []byte {
	var out bytes.Buffer
	s := bufio.NewScanner(bytes.NewReader(data))
	for s.Scan() {
		fields := strings.Fields(s.Text())
		if len(fields) >= 3 && !strings.HasPrefix(fields[0], "#") {
			if !travellingFilesystems[fields[2]] || fields[1] == "/" {
				out.WriteString("# not on a diskless node: ")
			}
		}
		out.WriteString(s.Text())
		out.WriteByte('\n')
	}
	return out.Bytes()
}
