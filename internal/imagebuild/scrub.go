package imagebuild

import (
	"bufio"
	"bytes"
	"path"
	"strings"
)

// leaveOut lists what does not travel from an installed machine into an image.
// Patterns are those of path.Match, below the root; a directory that matches
// stays out with all it holds, "dir/*" keeps the directory itself.
var leaveOut = []struct {
	reason   string
	patterns []string
}{
	{"made anew at every boot", []string{
		"proc/*", "sys/*", "dev/*", "run/*", "tmp/*", "var/tmp/*", "var/run/*", "var/lock/*", "lost+found",
	}},
	{"the identity of one machine", []string{
		"etc/ssh/ssh_host_*", "var/lib/dbus/machine-id",
		"etc/udev/rules.d/70-persistent-net.rules", "etc/udev/rules.d/70-persistent-cd.rules",
		"var/lib/NetworkManager/*", "var/lib/dhcp/*", "var/lib/dhclient/*", "var/lib/dhcpcd/*",
		"var/lib/systemd/random-seed", "var/lib/systemd/credential.secret", "var/lib/urandom/random-seed",
		"var/log/journal/*", "var/lib/systemd/coredump/*", "var/crash/*",
	}},
	{"whoever has it can sign images as the owner", []string{
		"root/.config/viver/*.key", "home/*/.config/viver/*.key",
	}},
	{"the disks of one machine", []string{
		"etc/crypttab", "etc/initramfs-tools/conf.d/resume", "swapfile", "swap.img", "swap/swapfile", "hiberfil.sys",
	}},
	{"can be fetched again", []string{
		"var/cache/apt/archives/*", "var/cache/apt/*.bin", "var/lib/apt/lists/*",
		"var/cache/dnf/*", "var/cache/yum/*", "var/cache/zypp/*", "var/cache/pacman/pkg/*", "var/cache/apk/*",
		"root/.cache", "home/*/.cache",
	}},
	{"replaced by VIVER's own", []string{
		"boot/initrd*", "boot/initramfs*",
	}},
}

// leftOut reports whether the file of that name, relative to the root, stays
// out of the image.
func leftOut(name string) bool {
	for _, group := range leaveOut {
		for _, p := range group.patterns {
			if ok, _ := path.Match(p, name); ok {
				return true
			}
		}
	}
	return false
}

// replacements returns the files whose content is not the source's, for those
// that the source has.
func (t *Tree) replacements() (map[string][]byte, error) {
	// Empty, not absent: systemd fills an empty machine-id and does not take
	// the boot for a first installation.
	r := map[string][]byte{}
	if t.isFile("etc/machine-id") {
		r["etc/machine-id"] = []byte{}
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
