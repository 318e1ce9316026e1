package imagebuild

import (
	"fmt"
	"path"
	"strings"
)

// rule is one reason why files stay out of an image, and which they are.
// Patterns are those of path.Match, below the root; a directory that matches
// stays out with all it holds, "dir/*" keeps the directory itself.
type rule struct {
	reason   string
	patterns []string
	// uncounted files are not looked at, and not told of on the terminal.
	uncounted bool
	// always means that nothing brings it into an image.
	always bool
}

// leaveOut lists what does not travel from an installed machine into an image.
var leaveOut = []*rule{
	madeAnew,
	{reason: "temporary", patterns: []string{"tmp/*", "var/tmp/*", "lost+found", "var/cache/system-update*"}},
	{reason: "the identity of one machine", patterns: []string{
		"etc/ssh/ssh_host_*", "var/lib/dbus/machine-id", "etc/hostid",
		"etc/iscsi/initiatorname.iscsi", "etc/nvme/hostnqn", "etc/nvme/hostid",
		"etc/udev/rules.d/70-persistent-net.rules", "etc/udev/rules.d/70-persistent-cd.rules",
		"var/lib/NetworkManager/*", "var/lib/dhcp/*", "var/lib/dhclient/*", "var/lib/dhcpcd/*", "var/lib/bluetooth/*",
		"var/lib/cloud/data/*", "var/lib/cloud/instance", "var/lib/cloud/instances/*",
		"var/lib/systemd/random-seed", "var/lib/systemd/credential.secret", "var/lib/urandom/random-seed", "var/lib/random-seed",
		"var/lib/lastlog/*", "var/log/journal/*", "var/lib/systemd/coredump/*", "var/crash/*",
	}},
	{reason: "whoever has it can sign images as the owner", always: true, patterns: []string{
		"root/.config/viver/*.key", "home/*/.config/viver/*.key",
	}},
	{reason: "a key or password of one machine or person, and an image is no secret", patterns: []string{
		"root/.ssh/id_*", "home/*/.ssh/id_*", "root/.gnupg", "home/*/.gnupg", "root/.netrc", "home/*/.netrc",
		"root/.git-credentials", "home/*/.git-credentials", "root/.pgpass", "home/*/.pgpass",
		"root/.aws/credentials", "home/*/.aws/credentials", "root/.kube/config", "home/*/.kube/config",
		"root/.docker/config.json", "home/*/.docker/config.json",
		"root/.*_history", "home/*/.*_history",
		"etc/krb5.keytab", "etc/ssl/private/*", "etc/pki/tls/private/*", "etc/letsencrypt/*", "etc/NetworkManager/system-connections/*",
		"etc/wpa_supplicant/*.conf", "etc/wireguard/*", "etc/openvpn/*.key", "etc/ipsec.secrets", "etc/ipsec.d/private/*", "etc/swanctl/private/*",
		"var/lib/iwd/*", "var/lib/tailscale/*", "var/lib/zerotier-one/*.secret", "var/lib/sss/db/*", "var/lib/sss/secrets/*",
		"var/lib/samba/private/*", "etc/salt/pki/minion/*", "etc/puppetlabs/puppet/ssl/*", "var/lib/puppet/ssl/*", "etc/chef/*.pem",
	}},
	{reason: "the disks of one machine", patterns: []string{
		"etc/crypttab", "etc/initramfs-tools/conf.d/resume", "etc/zfs/zpool.cache", "etc/lvm/backup/*", "etc/lvm/archive/*", "etc/lvm/devices/*",
		"swapfile", "swap.img", "swap/swapfile", "hiberfil.sys", "pagefile.sys", "viver-data", "viver-cache",
	}},
	{reason: "an order for one boot, which a diskless node would follow at every boot", patterns: []string{
		"system-update", "etc/system-update", ".autorelabel", "etc/selinux/.autorelabel", "forcefsck", "fastboot", "forcequotacheck", "etc/nologin",
		"var/lib/PackageKit/prepared-update", "var/lib/PackageKit/offline-update-action", "var/lib/dnf/system-upgrade",
	}},
	{reason: "containers and virtual machines, whose files an overlay root would hide or mistake", patterns: []string{
		"var/lib/docker/*", "var/lib/containers/*", "var/lib/containerd/*", "var/lib/buildkit/*", "var/lib/kubelet/*",
		"var/lib/lxc/*", "var/lib/lxd/*", "var/lib/incus/*", "var/lib/machines/*", "var/snap/docker/*",
		"root/.local/share/containers", "home/*/.local/share/containers", "root/.local/share/docker", "home/*/.local/share/docker",
	}},
	{reason: "snapshots of the same files", patterns: []string{
		".snapshots/*", "home/.snapshots/*", "timeshift/*", "timeshift-btrfs/*", "home/timeshift/*", "var/lib/snapd/snapshots/*", ".zfs/*",
	}},
	{reason: "can be fetched again", patterns: []string{
		"var/cache/apt/archives/*", "var/cache/apt/*.bin", "var/lib/apt/lists/*",
		"var/cache/dnf/*", "var/cache/yum/*", "var/cache/zypp/*", "var/cache/pacman/pkg/*", "var/cache/apk/*",
		"root/.cache", "home/*/.cache",
	}},
	{reason: "replaced by VIVER's own", patterns: []string{
		"boot/initrd*", "boot/initramfs*",
	}},
}

// Reasons that are found by what a file is, not by its name.
var (
	swapSpace   = &rule{reason: "swap space, which holds a machine's memory"}
	ownOutput   = &rule{reason: "made by VIVER itself: an image, a medium, or what is left of one"}
	whiteout    = &rule{reason: "a whiteout of an overlay, which the node's own would obey"}
	otherSystem = &rule{reason: "another file system or subvolume, which is no part of the installed system"}
	// madeAnew is for what the kernel makes up: nobody asks how much it is.
	madeAnew = &rule{reason: "made anew at every boot", uncounted: true, always: true, patterns: []string{
		"proc/*", "sys/*", "dev/*", "run/*", "var/run/*", "var/lock/*",
	}}
)

// emptied are files that stay, without what they hold: programs look for them.
var emptied = &rule{reason: "the identity and the login records of one machine", patterns: []string{
	"etc/machine-id", "var/log/lastlog", "var/log/wtmp", "var/log/btmp", "var/log/faillog", "var/log/tallylog",
}}

// rules decides by a file's name whether it stays out.
type rules struct {
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
	rule *rule
}

// newRules takes patterns of what travels in spite of a rule: path.Match below
// the root, each with all that is below.
func newRules(keep []string) (*rules, error) {
	r := &rules{byPlace: make(map[place][]pattern)}
	for _, rule := range leaveOut {
		for _, text := range rule.patterns {
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
		r.keep = append(r.keep, clean(p))
	}
	return r, nil
}

// match returns the rule that a name falls under itself, nil for none.
func (r *rules) match(name string) *rule {
	top, _, _ := strings.Cut(name, "/")
	for _, p := range r.byPlace[place{top, strings.Count(name, "/")}] {
		if ok, _ := path.Match(p.text, name); ok { // its syntax is a test's business
			return p.rule
		}
	}
	return nil
}

// keeps reports whether a name, or a directory it lies in, was asked for.
func (r *rules) keeps(name string) bool {
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

// keepsBelow reports whether something in a directory may have been asked for.
func (r *rules) keepsBelow(dir string) bool {
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

// applies reports whether a rule that name falls under holds.
func (r *rules) applies(rule *rule, name string) bool {
	return rule != nil && (rule.always || !r.keeps(name))
}

// out returns the rule by which a file stays out, and the file or directory that
// falls under it; nil when the file travels.
func (r *rules) out(name string) (*rule, string) {
	for end := 0; end < len(name); {
		next := strings.IndexByte(name[end+1:], '/')
		if next < 0 {
			end = len(name)
		} else {
			end += next + 1
		}
		if rule := r.match(name[:end]); r.applies(rule, name) {
			return rule, name[:end]
		}
	}
	return nil, ""
}
