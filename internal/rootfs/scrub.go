package rootfs

import (
	"archive/tar"
	"bytes"
	"io"
	"slices"
	"strings"

	"viver.lan/internal/exclude"
	"viver.lan/internal/imagetree"
	"viver.lan/internal/media"
	"viver.lan/internal/sign"
)

// replacement returns what a file holds in the image, nil when that is what it
// holds in the source.
func (s *tarStream) replacement(name string, e *imagetree.Entry) ([]byte, error) {
	switch {
	case e.Header.Typeflag != tar.TypeReg:
		return nil, nil
	case name == "etc/fstab":
		data, err := s.tree.ReadFile(name)
		out, changed := scrubFstab(data)
		for _, line := range changed {
			s.tree.Report.Changed(imagetree.FstabLine, name+": "+line, 0)
		}
		return out, err
	case name == selinuxConfig && !s.tree.Rules.Keeps(name):
		data, err := s.tree.ReadFile(name)
		if err != nil {
			return nil, err
		}
		out, changed := permissive(data)
		if !changed {
			return nil, nil
		}
		s.tree.Report.Changed(imagetree.Permissive, name, 0)
		return out, nil
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

// selinuxConfig has the mode in which SELinux starts (selinux_config(5)).
const selinuxConfig = "etc/selinux/config"

// permissive has SELinux log what it would deny, in place of denying it. What a node
// writes before it has a policy, such as its name servers and its host keys, lies in
// memory and has the label of that: an enforcing SELinux denies it to the services
// that need it, and where the source has no labels it denies everything.
func permissive(config []byte) (out []byte, changed bool) {
	for line := range bytes.Lines(config) {
		key, value, ok := bytes.Cut(line, []byte("="))
		if ok && string(bytes.TrimSpace(key)) == "SELINUX" && strings.EqualFold(string(bytes.TrimSpace(value)), "enforcing") {
			line, changed = []byte("# "+strings.TrimSpace(string(line))+" in the source of this image: docs/images.md says why\nSELINUX=permissive\n"), true
		}
		out = append(out, line...)
	}
	return out, changed
}

// sharedFilesystems are the types in fstab that mean the same on every machine.
var sharedFilesystems = map[string]bool{
	"nfs": true, "nfs4": true, "cifs": true, "9p": true, "ceph": true, "glusterfs": true, "fuse.sshfs": true,
	"tmpfs": true, "proc": true, "sysfs": true, "devpts": true, "debugfs": true, "hugetlbfs": true, "mqueue": true,
}

// scrubFstab keeps the lines of fstab(5) that mean the same on every machine, and
// returns the others, too: a diskless node that waits for its maker's disks does not
// boot.
func scrubFstab(data []byte) (out []byte, changed []string) {
	out = []byte{}
	for line := range bytes.Lines(data) {
		fields := strings.Fields(string(line))
		if len(fields) >= 3 && !strings.HasPrefix(fields[0], "#") && (!sharedFilesystems[fields[2]] || fields[1] == "/") {
			out = append(out, "# not on a diskless node: "...)
			changed = append(changed, strings.Join(fields, " "))
		}
		out = append(out, line...)
	}
	return out, changed
}

// swapSignatures stand at the end of the first page of swap space: of mkswap(8), and
// of what the ways to hibernate put in their place.
var swapSignatures = []string{"SWAPSPACE2", "SWAP-SPACE", "S1SUSPEND\x00", "S2SUSPEND\x00", "ULSUSPEND\x00", "LINHIB0001"}

// matchContent returns the rule by which a file stays out that its bytes show, nil
// when it belongs into the image.
func (s *tarStream) matchContent(name string, c *imagetree.Content) *exclude.Rule {
	var found *exclude.Rule
	if isSwap(c) {
		found = exclude.Swap
	} else if holdsKey(name, c) {
		if !s.tree.Rules.Applies(exclude.PrivateKey, name) && !s.tree.Rules.KeepsSecret(name) { // reportSecrets has named that
			s.tree.Report.Changed(imagetree.Secret, name, c.Header.Size)
		}
		found = exclude.PrivateKey
	} else if c.Header.Size >= media.SettingsSize {
		if label, err := media.ISOLabel(c); err == nil && label == media.Label {
			found = exclude.VIVEROutput
		}
	}
	if !s.tree.Rules.Applies(found, name) {
		return nil
	}
	return found
}

func isSwap(c *imagetree.Content) bool {
	const smallest, largestPage = 10 * 4096, 64 << 10
	if c.Header.Size < smallest {
		return false
	}
	for page := int64(4096); page <= min(largestPage, c.Header.Size); page *= 2 {
		var mark [10]byte
		if _, err := c.ReadAt(mark[:], page-int64(len(mark))); err == nil && slices.Contains(swapSignatures, string(mark[:])) {
			return true
		}
	}
	return false
}

// isKey reports whether a file is a key that signs images.
func isKey(c *imagetree.Content) (bool, error) {
	if c.Header.Size > sign.MaxKeySize {
		return false, nil
	}
	data, err := io.ReadAll(c.Whole())
	return err == nil && sign.IsPrivateKey(data), err
}
