// Package exclude decides which files of an installed Linux stay out of an image,
// by their names.
//
// It reads no files: whoever finds by its content or its mount that a file stays
// out takes the Rule for that from here. The invariant: each rule has its reason in
// words.
//
// Names are those below the root of the source: no leading slash, "." for the root.
package exclude

import (
	"fmt"
	"path"
	"strings"
)

// Clean turns "/usr/", "./usr" and "usr" into "usr".
func Clean(name string) string {
	name = path.Clean("/" + name)
	if name == "/" {
		return "."
	}
	return name[1:]
}

// Rule is one reason why files stay out of an image, and which they are.
// Patterns are those of path.Match, below the root; a directory that matches
// stays out with all it holds, "dir/*" keeps the directory itself.
type Rule struct {
	// Reason is for people, in the report of an image.
	Reason string
	// Patterns, none of a rule for what is found by other than its name.
	Patterns []string
	// Uncounted files are not read, and not mentioned on the terminal.
	Uncounted bool
	// Always means that --keep does not bring them.
	Always bool
}

// leaveOut lists what of an installed machine stays out of an image.
var leaveOut = []*Rule{
	Recreated,
	{Reason: "temporary", Patterns: []string{"tmp/*", "var/tmp/*", "lost+found", "var/cache/system-update*"}},
	{Reason: "the identity of one machine", Patterns: []string{
		"etc/ssh/ssh_host_*", "var/lib/dbus/machine-id", "etc/hostid",
		"etc/iscsi/initiatorname.iscsi", "etc/nvme/hostnqn", "etc/nvme/hostid",
		"etc/udev/rules.d/70-persistent-net.rules", "etc/udev/rules.d/70-persistent-cd.rules",
		"var/lib/NetworkManager/*", "var/lib/dhcp/*", "var/lib/dhclient/*", "var/lib/dhcpcd/*", "var/lib/bluetooth/*",
		"var/lib/cloud/data/*", "var/lib/cloud/instance", "var/lib/cloud/instances/*",
		"var/lib/systemd/random-seed", "var/lib/systemd/credential.secret", "var/lib/urandom/random-seed", "var/lib/random-seed",
		"var/lib/lastlog/*", "var/log/journal/*", "var/lib/systemd/coredump/*", "var/crash/*",
	}},
	{Reason: "whoever has it can sign images as the owner", Always: true, Patterns: []string{
		"root/.config/viver/*.key", "home/*/.config/viver/*.key",
	}},
	{Reason: "a key or password of one machine or person, and an image is no secret", Patterns: []string{
		"root/.ssh/id_*", "home/*/.ssh/id_*", "root/.gnupg", "home/*/.gnupg", "root/.netrc", "home/*/.netrc",
		"root/.git-credentials", "home/*/.git-credentials", "root/.pgpass", "home/*/.pgpass",
		"root/.aws/credentials", "home/*/.aws/credentials", "root/.kube/config", "home/*/.kube/config",
		"root/.docker/config.json", "home/*/.docker/config.json",
		"root/.*_history", "home/*/.*_history",
		"etc/krb5.keytab", "etc/munge/munge.key", "etc/ssl/private/*", "etc/pki/tls/private/*", "etc/letsencrypt/*", "etc/NetworkManager/system-connections/*",
		"etc/wpa_supplicant/*.conf", "etc/wireguard/*", "etc/openvpn/*.key", "etc/ipsec.secrets", "etc/ipsec.d/private/*", "etc/swanctl/private/*",
		"var/lib/iwd/*", "var/lib/tailscale/*", "var/lib/zerotier-one/*.secret", "var/lib/sss/db/*", "var/lib/sss/secrets/*",
		"var/lib/samba/private/*", "etc/salt/pki/minion/*", "etc/puppetlabs/puppet/ssl/*", "var/lib/puppet/ssl/*", "etc/chef/*.pem",
	}},
	{Reason: "the disks of one machine", Patterns: []string{
		"etc/crypttab", "etc/initramfs-tools/conf.d/resume", "etc/zfs/zpool.cache", "etc/lvm/backup/*", "etc/lvm/archive/*", "etc/lvm/devices/*",
		"swapfile", "swap.img", "swap/swapfile", "hiberfil.sys", "pagefile.sys", "viver-data", "viver-cache",
	}},
	{Reason: "an order for one boot, which a diskless node would follow at every boot", Patterns: []string{
		"system-update", "etc/system-update", ".autorelabel", "etc/selinux/.autorelabel", "forcefsck", "fastboot", "forcequotacheck", "etc/nologin",
		"var/lib/PackageKit/prepared-update", "var/lib/PackageKit/offline-update-action", "var/lib/dnf/system-upgrade",
	}},
	{Reason: "when jobs last ran on this machine: every node would find them overdue and run them at every boot", Patterns: []string{
		"var/lib/systemd/timers/*", "root/.local/share/systemd/timers/*", "home/*/.local/share/systemd/timers/*",
	}},
	{Reason: "containers and virtual machines, whose files an overlay root would hide or mistake", Patterns: []string{
		"var/lib/docker/*", "var/lib/containers/*", "var/lib/containerd/*", "var/lib/buildkit/*", "var/lib/kubelet/*",
		"var/lib/lxc/*", "var/lib/lxd/*", "var/lib/incus/*", "var/lib/machines/*", "var/snap/docker/*",
		"root/.local/share/containers", "home/*/.local/share/containers", "root/.local/share/docker", "home/*/.local/share/docker",
	}},
	{Reason: "snapshots of the same files", Patterns: []string{
		".snapshots/*", "home/.snapshots/*", "timeshift/*", "timeshift-btrfs/*", "home/timeshift/*", "var/lib/snapd/snapshots/*", ".zfs/*",
	}},
	{Reason: "can be fetched again", Patterns: []string{
		"var/cache/apt/archives/*", "var/cache/apt/*.bin", "var/lib/apt/lists/*",
		"var/cache/dnf/*", "var/cache/yum/*", "var/cache/zypp/*", "var/cache/pacman/pkg/*", "var/cache/apk/*",
		"root/.cache", "home/*/.cache",
	}},
	{Reason: "replaced by VIVER's own", Patterns: []string{
		"boot/initrd*", "boot/initramfs*",
	}},
}

// Rules for what is found by other than its name.
var (
	Swap        = &Rule{Reason: "swap space, which holds a machine's memory"}
	VIVEROutput = &Rule{Reason: "made by VIVER itself: an image, a medium, or what is left of one"}
	Whiteout    = &Rule{Reason: "a whiteout of an overlay, which the node's own would obey"}
	OtherSystem = &Rule{Reason: "another file system or subvolume, which is no part of the installed system"}
	// SigningKey is for copies of the owner's key: an image may be built from the
	// very machine where the key lies.
	SigningKey = &Rule{Reason: "a key that signs images, and an image is no secret", Always: true}
	// Recreated is for what the kernel provides: nobody asks how much it is.
	Recreated = &Rule{Reason: "made again at every boot", Uncounted: true, Always: true, Patterns: []string{
		"proc/*", "sys/*", "dev/*", "run/*", "var/run/*", "var/lock/*",
	}}
)

// Emptied are files that stay, without what they hold: programs look for them.
var Emptied = &Rule{Reason: "the identity and the login records of one machine", Patterns: []string{
	"etc/machine-id", "var/log/lastlog", "var/log/wtmp", "var/log/btmp", "var/log/faillog", "var/log/tallylog",
}}

// Rules decides by a file's name whether it stays out.
type Rules struct {
	byPlace map[place][]pattern
	keep    []string
}

// place is where a pattern can match: most files of a system lie where none does.
type place struct {
	top   string
	depth int
}

type pattern struct {
	text string
	rule *Rule
}

// New takes patterns of what is in the image in spite of a rule: path.Match below
// the root, each with all that is below.
func New(keep []string) (*Rules, error) {
	r := &Rules{byPlace: make(map[place][]pattern)}
	for _, rule := range leaveOut {
		for _, text := range rule.Patterns {
			top, _, _ := strings.Cut(text, "/")
			if strings.ContainsAny(top, `*?[\`) {
				return nil, fmt.Errorf("rule %s: its first part has a wildcard", text)
			}
			at := place{top, strings.Count(text, "/")}
			r.byPlace[at] = append(r.byPlace[at], pattern{text, rule})
		}
	}
	for _, p := range keep {
		if _, err := path.Match(p, ""); err != nil {
			return nil, fmt.Errorf("--keep %s: %w", p, err)
		}
		r.keep = append(r.keep, Clean(p))
	}
	return r, nil
}

// Match returns the rule that a name falls under itself, nil for none.
func (r *Rules) Match(name string) *Rule {
	top, _, _ := strings.Cut(name, "/")
	for _, p := range r.byPlace[place{top, strings.Count(name, "/")}] {
		if ok, _ := path.Match(p.text, name); ok { // its syntax is a test's business
			return p.rule
		}
	}
	return nil
}

// Keeps reports whether a name, or a directory it lies in, was asked for.
func (r *Rules) Keeps(name string) bool {
	if len(r.keep) == 0 {
		return false
	}
	for ; name != "."; name = path.Dir(name) {
		for _, p := range r.keep {
			if ok, _ := path.Match(p, name); ok {
				return true
			}
		}
	}
	return false
}

// KeepsBelow reports whether something in a directory may have been asked for.
func (r *Rules) KeepsBelow(dir string) bool {
	depth := strings.Count(dir, "/") + 1
	for _, p := range r.keep {
		parts := strings.Split(p, "/")
		if len(parts) <= depth {
			continue
		}
		if ok, _ := path.Match(strings.Join(parts[:depth], "/"), dir); ok {
			return true
		}
	}
	return false
}

// Applies reports whether a rule that name falls under holds.
func (r *Rules) Applies(rule *Rule, name string) bool {
	return rule != nil && (rule.Always || !r.Keeps(name))
}

// Out returns the rule by which a file stays out, and the file or directory that
// falls under it; nil when the file is in the image.
func (r *Rules) Out(name string) (*Rule, string) {
	for end := 0; end < len(name); {
		next := strings.IndexByte(name[end+1:], '/')
		if next < 0 {
			end = len(name)
		} else {
			end += next + 1
		}
		if rule := r.Match(name[:end]); r.Applies(rule, name) {
			return rule, name[:end]
		}
	}
	return nil, ""
}
