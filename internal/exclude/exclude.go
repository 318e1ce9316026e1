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
	"cmp"
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"
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
	// Anywhere are such patterns of the last parts of a name, in every directory where
	// persons and administrators put files (IsPersonal); those without a wildcard have
	// three parts at most.
	Anywhere []string
	// Uncounted files are not read, and not mentioned on the terminal.
	Uncounted bool
	// Always means that --keep does not bring them.
	Always bool
}

// secret is why most keys and passwords stay out.
const secret = "a key or password of one machine or person, and an image is no secret"

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
	{Reason: secret, Patterns: []string{
		"root/.ssh/id_*", "home/*/.ssh/id_*", "etc/shadow-", "etc/gshadow-", "etc/security/opasswd",
		"etc/krb5.keytab", "etc/munge/munge.key", "etc/ssl/private/*", "etc/pki/tls/private/*", "etc/letsencrypt/*", "etc/NetworkManager/system-connections/*",
		"etc/wpa_supplicant/*.conf", "var/lib/connman/wifi_*", "etc/sysconfig/network-scripts/keys-*", "etc/sysconfig/network/ifcfg-wl*", "etc/wireguard/*", "etc/openvpn/*.key", "etc/ppp/*-secrets", "etc/ipsec.secrets", "etc/ipsec.d/private/*", "etc/swanctl/private/*",
		"var/lib/iwd/*", "var/lib/tailscale/*", "var/lib/zerotier-one/*.secret", "var/lib/sss/db/*", "var/lib/sss/secrets/*",
		"var/lib/samba/private/*", "etc/salt/pki/minion/*", "etc/puppetlabs/puppet/ssl/*", "var/lib/puppet/ssl/*", "etc/chef/*.pem",
	}, Anywhere: []string{
		".netrc", ".pgpass", ".my.cnf", ".git-credentials", ".gnupg", ".*_history", ".lesshst", ".viminfo",
		".aws/credentials", ".azure", ".config/gcloud", ".oci", ".s3cfg", ".boto", ".config/rclone", ".config/doctl", ".config/gh", ".vault-token",
		".kube/config", ".docker/config.json", "containers/auth.json", ".terraform.d/credentials.tfrc.json",
		".npmrc", ".pypirc", ".cargo/credentials", ".cargo/credentials.toml", ".m2/settings.xml",
		".password-store", ".local/share/keyrings", ".local/share/kwalletd", "firefox/*/logins.json", "firefox/*/key4.db",
		"*.keytab", "*.p12", "*.pfx", "*.kdbx",
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
	// OtherKernel and NoModules are for what goes with a kernel that no node boots, and
	// for what a root does without.
	OtherKernel = &Rule{Reason: "of another kernel than the one that nodes boot"}
	NoModules   = &Rule{Reason: "as --modules none says", Always: true}
	// PrivateKey is for what its content shows to be one.
	PrivateKey = &Rule{Reason: secret}
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

// Chosen is for what whoever builds the image names to be left out.
var Chosen = &Rule{Reason: "as --exclude says"}

// Rules decides by a file's name whether it stays out.
type Rules struct {
	byPlace       map[place][]pattern
	literal       map[string]*Rule // by the last parts of a name
	wild          []pattern        // of the last parts of a name
	keep, exclude patterns
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

// New has the rules, and the choice of whoever builds the image, nil for none.
func New(choice *Choice) (*Rules, error) {
	r := &Rules{byPlace: make(map[place][]pattern), literal: make(map[string]*Rule)}
	for _, rule := range leaveOut {
		for _, text := range rule.Patterns {
			top, _, _ := strings.Cut(text, "/")
			if strings.ContainsAny(top, `*?[\`) {
				return nil, fmt.Errorf("rule %s: its first part has a wildcard", text)
			}
			at := place{top, strings.Count(text, "/")}
			r.byPlace[at] = append(r.byPlace[at], pattern{text, rule})
		}
		for _, text := range rule.Anywhere {
			if strings.ContainsAny(text, `*?[\`) {
				r.wild = append(r.wild, pattern{text, rule})
			} else {
				r.literal[text] = rule
			}
		}
	}
	if choice == nil {
		return r, nil
	}
	var err error
	if r.keep, err = cleaned("--keep", choice.Keep); err != nil {
		return nil, err
	}
	if r.exclude, err = cleaned("--exclude", choice.Exclude); err != nil {
		return nil, err
	}
	if slices.Contains(r.exclude.list, ".") {
		return nil, errors.New("--exclude /: nothing would be left")
	}
	return r, nil
}

// Unmatched lists what was to be left out and matches no name that was asked about: a
// mistyped one leaves in the image what nobody wants there.
func (r *Rules) Unmatched() (list []string) {
	for i, text := range r.exclude.list {
		if !r.exclude.matched[i].Load() {
			list = append(list, text)
		}
	}
	return list
}

// Match returns the rule that a name falls under itself, nil for none.
func (r *Rules) Match(name string) *Rule {
	chosen, rule := r.exclude.match(name), r.builtin(name)
	if chosen && (rule == nil || !rule.Always) {
		return Chosen
	}
	return rule
}

func (r *Rules) builtin(name string) *Rule {
	top, _, _ := strings.Cut(name, "/")
	for _, p := range r.byPlace[place{top, strings.Count(name, "/")}] {
		if ok, _ := path.Match(p.text, name); ok { // its syntax is a test's business
			return p.rule
		}
	}
	if !IsPersonal(name) {
		return nil
	}
	for parts := 1; parts <= 3; parts++ {
		if rule := r.literal[last(name, parts)]; rule != nil {
			return rule
		}
	}
	for _, p := range r.wild {
		if ok, _ := path.Match(p.text, last(name, strings.Count(p.text, "/")+1)); ok {
			return p.rule
		}
	}
	return nil
}

// ofPackages are directories whose files come with packages: they are in nobody's
// possession, and examples of keys among them are none.
var ofPackages = []string{"usr", "bin", "boot", "lib", "lib32", "lib64", "libx32", "sbin", "nix", "gnu", "snap", "var/lib/dpkg", "var/lib/flatpak", "var/lib/snapd"}

// IsPersonal reports whether a file may belong to a person or an administrator.
func IsPersonal(name string) bool {
	if strings.HasPrefix(name, "usr/local/") {
		return true
	}
	return !slices.ContainsFunc(ofPackages, func(dir string) bool {
		return name == dir || strings.HasPrefix(name, dir+"/")
	})
}

// last returns the last parts of a name.
func last(name string, parts int) string {
	at := len(name)
	for range parts {
		if at = strings.LastIndexByte(name[:at], '/'); at < 0 {
			return name
		}
	}
	return name[at+1:]
}

// Keeps reports whether a name, or a directory it lies in, was asked for.
func (r *Rules) Keeps(name string) bool { return r.keep.levels(name) > 0 }

// KeepsBelow reports whether something in a directory may have been asked for.
func (r *Rules) KeepsBelow(dir string) bool {
	depth := levels(dir)
	for _, p := range r.keep.list {
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

// Applies reports whether a rule that name falls under holds. What was asked for is not
// left out, with one exception: within what --exclude leaves out, --keep says only what of
// it stays, so it brings a secret where it names that, or a directory of secrets.
func (r *Rules) Applies(rule *Rule, name string) bool {
	if rule == nil {
		return false
	}
	keep := r.keep.levels(name)
	if rule.Always || keep == 0 {
		return true
	}
	chosen := r.exclude.levels(name)
	if rule == Chosen {
		return chosen >= keep
	}
	return rule.Reason == secret && 0 < chosen && chosen < keep && keep < cmp.Or(r.secretLevels(name), levels(name))
}

// KeepsSecret reports whether a rule about secrets does not hold for a name, because it
// was asked for. Of a directory that came with all it holds, only the directory counts.
func (r *Rules) KeepsSecret(name string) bool {
	keep := r.keep.levels(name)
	if keep == 0 {
		return false
	}
	found := r.secretLevels(name)
	return found > 0 && levels(name) == max(keep, found) && !r.Applies(PrivateKey, name)
}

// secretLevels returns how many levels the part of a name has that a rule about secrets
// matches; 0 for none.
func (r *Rules) secretLevels(name string) int {
	for part := range parts(name) {
		if rule := r.builtin(part); rule != nil && rule.Reason == secret {
			return levels(part)
		}
	}
	return 0
}

// Out returns the rule by which a file stays out, and the file or directory that
// falls under it; nil when the file is in the image.
func (r *Rules) Out(name string) (*Rule, string) {
	for part := range parts(name) {
		if rule := r.Match(part); r.Applies(rule, name) {
			return rule, part
		}
	}
	return nil, ""
}

// parts are the directories that lead to a name, the topmost first, and the name.
func parts(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range len(name) {
			if name[i] == '/' && !yield(name[:i]) {
				return
			}
		}
		yield(name)
	}
}

// levels returns how many directories and files a name consists of.
func levels(name string) int { return strings.Count(name, "/") + 1 }
