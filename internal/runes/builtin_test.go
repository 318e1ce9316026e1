package runes

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/ether"
)

func testFacts() Facts {
	return Facts{
		Hostname: "node-1a2b", MachineID: "0123456789abcdef0123456789abcdef", Domain: "lab.example", Interface: "eth0", MAC: ether.MAC{0x52, 0x54, 0, 0xaa, 0xbb, 1},
		Address: "10.77.3.4", PrefixLength: 16, Netmask: "255.255.0.0", Gateway: "10.77.0.1", DNS: []string{"10.77.0.1", "10.77.0.2"},
		GraphicsDriver: "virtio_gpu", GraphicsBus: "PCI:0:2:0",
		AuthorizedKeys: []string{"ssh-ed25519 AAAA anna@home"},
		FirewallOpen:   true,
		HostKey:        []string{"-----BEGIN", "abc", "-----END"}, HostKeyPublic: "ssh-ed25519 AAAA root@node-1a2b",
		SerialConsoles: []string{"ttyS0"},
		Init:           "systemd",
	}
}

func builtins(t *testing.T) []Bundle {
	t.Helper()
	bundles, errs := Load(os.DirFS("../../overlay/runes"))
	for _, err := range errs {
		t.Fatal(err)
	}
	return bundles
}

// image makes a root holding the files given; a value beginning with "->" is a
// symbolic link, a name ending in "/" a directory.
func image(t *testing.T, files map[string]string) Target {
	t.Helper()
	where := Target{Root: t.TempDir(), Run: t.TempDir()}
	for name, content := range files {
		p := filepath.Join(where.Root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if link, ok := strings.CutPrefix(content, "->"); ok {
			err = os.Symlink(link, p)
		} else if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(p, 0o755)
		} else {
			err = os.WriteFile(p, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return where
}

// read returns a file as the booted system will see it.
func read(t *testing.T, where Target, name string) string {
	t.Helper()
	p := filepath.Join(where.Root, name)
	if rest, ok := strings.CutPrefix(name, "/run/"); ok {
		p = filepath.Join(where.Run, rest)
	}
	data, err := os.ReadFile(p)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(data)
}

func apply(t *testing.T, where Target, bundles []Bundle, f Facts) map[string]Result {
	t.Helper()
	byName := make(map[string]Result)
	for _, r := range Apply(context.Background(), where, bundles, f, slog.New(slog.NewTextHandler(t.Output(), nil))) {
		byName[r.Rune] = r
	}
	return byName
}

func TestBuiltinsOnADebianRoot(t *testing.T) {
	where := image(t, map[string]string{
		"etc/hostname":                     "->/run/hostname", // an image may hold anything
		"etc/machine-id":                   "",
		"usr/sbin/chronyd":                 "",
		"etc/hosts":                        "127.0.0.1 localhost\n127.0.1.1 builder\n10.0.0.7 printer",
		"etc/network/interfaces":           "auto lo\niface lo inet loopback\n",
		"etc/NetworkManager/":              "",
		"etc/dhcpcd.conf":                  "hostname\n",
		"usr/lib/systemd/systemd":          "",
		"usr/lib/systemd/systemd-networkd": "",
		"usr/lib/systemd/network/":         "",
		"usr/bin/Xorg":                     "",
		"lib":                              "->usr/lib",
		"root/.ssh/authorized_keys":        "ssh-rsa BBBB image\n",
		"usr/bin/ssh":                      "",
		"etc/ssh/":                         "",
		"etc/firewalld/":                   "",
		"usr/sbin/rpc.nfsd":                "",
		"usr/sbin/mount.nfs":               "",
		"sbin":                             "->usr/sbin",
		"home/":                            "",
		"usr/sbin/iceccd":                  "",
		"usr/sbin/icecc-scheduler":         "",
		journalRemote:                      "",
		journalUpload:                      "",
		"usr/bin/mpirun":                   "",
		"etc/openmpi/":                     "",
		"usr/sbin/sshd":                    "",
		"etc/ssh/sshd_config.d/":           "",
		"etc/ssh/ssh_config.d/":            "",
		"usr/sbin/slurmctld":               "",
		"usr/sbin/slurmd":                  "",
		"usr/sbin/munged":                  "",
		"usr/bin/sftp":                     "",
	})
	f := testFacts()
	results := apply(t, where, builtins(t), f)
	for name, r := range results {
		if r.Outcome != Applied && name != "hostkeys" { // there is no SSH server
			t.Errorf("%s: %+v", name, r)
		}
	}
	for name, want := range map[string]string{
		"/etc/hostname":                           "node-1a2b\n",
		"/etc/machine-id":                         "0123456789abcdef0123456789abcdef\n",
		"/etc/hosts":                              "127.0.0.1 localhost\n10.0.0.7 printer\n10.77.3.4\tnode-1a2b.lab.example node-1a2b\t# viver\n",
		"/etc/network/interfaces":                 "auto lo\niface lo inet loopback\nsource /etc/network/interfaces.d/*\n",
		"/run/network/ifstate.eth0":               "eth0\n",
		"/etc/resolv.conf":                        "# from the lease of eth0\nsearch lab.example\nnameserver 10.77.0.1\nnameserver 10.77.0.2\n",
		"/etc/dhcpcd.conf":                        "# The root file system hangs on eth0. (viver-boot-nic)\ndenyinterfaces eth0 viver-boot-nic\nhostname\n",
		"/root/.ssh/authorized_keys":              "ssh-rsa BBBB image\nssh-ed25519 AAAA anna@home (viver)\n",
		"/etc/default/halt":                       "", // sysvinit only
		"/run/systemd/resolved.conf.d/viver.conf": "", // not installed
		"/run/systemd/system/getty@tty1.service.d/viver.conf": "", // not asked for
	} {
		if got := read(t, where, name); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"/etc/network/interfaces.d/viver":                       "no-auto-down eth0",
		"/run/systemd/network/00-viver.network":                 "MACAddress=52:54:00:aa:bb:01",
		"/run/systemd/network/00-viver.link":                    "Name=eth0",
		"/run/NetworkManager/conf.d/viver.conf":                 "unmanaged-devices+=mac:52:54:00:aa:bb:01;interface-name:eth0",
		"/run/systemd/system/networking.service.d/viver.conf":   "[Service]\nEnvironment=EXCLUDE_INTERFACES=eth0\nExecCondition=",
		"/run/systemd/system/ifupdown-pre.service.d/viver.conf": "[Service]\nEnvironment=EXCLUDE_INTERFACES=eth0\n",
		"/etc/firewalld/policies/viver.xml":                     "<source address=\"10.77.",
		"/etc/X11/xorg.conf.d/10-viver.conf":                    "Driver \"modesetting\"\n\tBusID \"PCI:0:2:0\"",
	} {
		if got := read(t, where, name); !strings.Contains(got, want) {
			t.Errorf("%s holds %q, want %q in it", name, got, want)
		}
	}
	if link, err := os.Readlink(filepath.Join(where.Root, "etc/ssh/ssh_known_hosts2")); err != nil || link != "/run/viver/ssh_known_hosts" {
		t.Errorf("ssh looks for other machines' keys in %q, %v", link, err)
	}
	if info, err := os.Stat(filepath.Join(where.Root, "root/.ssh")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("/root/.ssh: %v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Join(where.Root, "root/.ssh/authorized_keys")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("authorized_keys: %v, %v", info, err)
	}

	// Saved data: the next boot finds what this one wrote, under another name,
	// with another NIC and without the key.
	f.Hostname, f.Interface, f.AuthorizedKeys, f.Domain = "node-9", "eth1", nil, ""
	apply(t, where, builtins(t), f)
	for name, want := range map[string]string{
		"/etc/hosts":                 "127.0.0.1 localhost\n10.0.0.7 printer\n10.77.3.4\tnode-9\t# viver\n",
		"/etc/network/interfaces":    "auto lo\niface lo inet loopback\nsource /etc/network/interfaces.d/*\n",
		"/etc/dhcpcd.conf":           "# The root file system hangs on eth1. (viver-boot-nic)\ndenyinterfaces eth1 viver-boot-nic\nhostname\n",
		"/root/.ssh/authorized_keys": "ssh-rsa BBBB image\n",
	} {
		if got := read(t, where, name); got != want {
			t.Errorf("second boot: %s holds %q, want %q", name, got, want)
		}
	}
}

// ifupdown's service is skipped only when it has nothing to do. Its ifquery lists the
// NICs that come up by themselves, or the settings of one.
func TestIfupdownIsSkippedWhenIdle(t *testing.T) {
	where := image(t, map[string]string{"etc/network/interfaces": "", "usr/lib/systemd/systemd": ""})
	apply(t, where, builtins(t), testFacts())
	_, condition, ok := strings.Cut(read(t, where, "/run/systemd/system/networking.service.d/viver.conf"), "ExecCondition=/bin/sh -c '")
	if !ok {
		t.Fatal("there is no condition")
	}
	condition = strings.ReplaceAll(strings.TrimSuffix(condition, "'\n"), "$$", "$") // as systemd reads it
	for name, c := range map[string]struct {
		list, lo string // what ifquery prints
		file     string // in /etc/network
		runs     bool
	}{
		"nothing":                {},
		"another NIC":            {list: "eth1", runs: true},
		"lo has settings":        {lo: "up: ip address add 10.1.1.1/32 dev lo", runs: true},
		"systemd-resolved's":     {file: "if-up.d/resolved"},
		"a script":               {file: "if-up.d/firewall", runs: true},
		"a script before":        {file: "if-pre-up.d/iptables", runs: true},
		"a file with an error":   {list: "fail", runs: true},
		"lo cannot be asked":     {lo: "fail", runs: true},
		"what looks like a glob": {file: "if-up.d/*x", runs: true},
	} {
		t.Run(name, func(t *testing.T) {
			root := image(t, map[string]string{"etc/network/if-up.d/": "", "etc/network/if-pre-up.d/": ""}).Root
			network := filepath.Join(root, "etc/network")
			if c.file != "" {
				if err := os.WriteFile(filepath.Join(network, c.file), nil, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			ifquery := "#!/bin/sh\ncase \"$*\" in lo) said='" + c.lo + "';; *) said='" + c.list + "';; esac\n[ \"$said\" != fail ] && echo \"$said\"\n"
			if err := os.WriteFile(filepath.Join(root, "ifquery"), []byte(ifquery), 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("sh", "-c", strings.ReplaceAll(condition, "/etc/network", network))
			cmd.Env = append(os.Environ(), "PATH="+root+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if runs := err == nil; runs != c.runs {
				t.Errorf("it runs: %v, want %v; %v, %s", runs, c.runs, err, out)
			}
		})
	}
}

func TestMachineID(t *testing.T) {
	const mine = "0123456789abcdef0123456789abcdef\n"
	for _, test := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"systemd, a file not filled in", map[string]string{"etc/machine-id": "", "usr/lib/systemd/systemd": ""}, mine},
		{"systemd, no file", map[string]string{"usr/lib/systemd/systemd": ""}, mine},
		{"of another boot, in saved data", map[string]string{"etc/machine-id": "fedcba9876543210fedcba9876543210\n"}, mine},
		{"a link", map[string]string{"etc/machine-id": "->../var/lib/dbus/machine-id", "var/lib/dbus/machine-id": "x"}, mine},
		{"nobody wants one", map[string]string{"etc/": ""}, ""},
	} {
		where := image(t, test.files)
		apply(t, where, builtins(t), testFacts())
		if got := read(t, where, "/etc/machine-id"); got != test.want {
			t.Errorf("%s: /etc/machine-id holds %q, want %q", test.name, got, test.want)
		}
		if info, err := os.Stat(filepath.Join(where.Root, "etc/machine-id")); test.want != "" && (err != nil || info.Mode().Perm() != 0o444) {
			t.Errorf("%s: %v, %v", test.name, info, err)
		}
	}
	where := image(t, map[string]string{"etc/machine-id": ""})
	f := testFacts()
	f.MachineID = "" // then the distribution makes one
	if r := apply(t, where, builtins(t), f)["identity"]; r.Outcome != Skipped {
		t.Errorf("%+v", r)
	}
}

// A host key is laid once: what is there at the next boot, because of saved data,
// stays.
func TestHostKeys(t *testing.T) {
	where := image(t, map[string]string{"etc/ssh/sshd_config": ""})
	const private, public = "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ed25519_key.pub"
	bundles, f := builtins(t), testFacts()
	if r := apply(t, where, bundles, f)["hostkeys"]; r.Outcome != Applied {
		t.Fatalf("%+v", r)
	}
	if got := read(t, where, private); got != "-----BEGIN\nabc\n-----END\n" {
		t.Errorf("the private half is %q", got)
	}
	first := read(t, where, public)
	if first != "ssh-ed25519 AAAA root@node-1a2b\n" {
		t.Errorf("the public half is %q", first)
	}
	if info, err := os.Stat(filepath.Join(where.Root, private)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the private half: %v, %v", info, err)
	}
	f.HostKey, f.HostKeyPublic = []string{"another"}, "another"
	if r := apply(t, where, bundles, f)["hostkeys"]; r.Outcome != Skipped || read(t, where, public) != first {
		t.Errorf("the next boot: %+v, the key is %q", r, read(t, where, public))
	}
	must(t, os.Rename(filepath.Join(where.Root, private), filepath.Join(where.Root, "etc/ssh/ssh_host_rsa_key")))
	if r := apply(t, where, bundles, f)["hostkeys"]; r.Outcome != Skipped {
		t.Errorf("a key of another kind is there: %+v", r)
	}
	f.HostKey = nil
	if r := apply(t, image(t, map[string]string{"etc/ssh/sshd_config": ""}), bundles, f)["hostkeys"]; r.Outcome != Skipped {
		t.Errorf("no key could be made: %+v", r)
	}
}

// The private half of the host key is no business of hooks.
func TestHooksHaveNoHostKey(t *testing.T) {
	for _, v := range (Bundle{}).environment(testFacts()) {
		if strings.HasPrefix(v, "VIVER_HOSTKEY=") || strings.Contains(v, "BEGIN") {
			t.Errorf("a hook's environment has %s", v)
		}
	}
}

func TestConsoleComesAndGoes(t *testing.T) {
	const inittab = "id:2:initdefault:\n1:2345:respawn:/sbin/getty --noclear 38400 tty1\n2:23:respawn:/sbin/getty 38400 tty2\n#T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100\n"
	where := image(t, map[string]string{"etc/inittab": inittab, "usr/sbin/agetty": "", "sbin": "->usr/sbin"})
	f := testFacts()
	f.ConsoleLogin = true
	apply(t, where, builtins(t), f)
	want := strings.Replace(inittab, "getty --noclear", "getty --autologin=root --noclear", 1) +
		"vs0:2345:respawn:/sbin/agetty --autologin=root --keep-baud 115200,57600,38400,9600 ttyS0 vt220\n"
	for range 2 {
		if got := read(t, where, "/etc/inittab"); got != want {
			t.Errorf("console.login on:\n%s\nwant\n%s", got, want)
		}
		apply(t, where, builtins(t), f)
	}
	f.ConsoleLogin = false
	apply(t, where, builtins(t), f)
	if got := read(t, where, "/etc/inittab"); got != inittab {
		t.Errorf("console.login off again:\n%s\nwant\n%s", got, inittab)
	}
	if got := read(t, where, "/etc/default/halt"); got != "NETDOWN=no\n" {
		t.Errorf("/etc/default/halt holds %q", got)
	}
}

func TestConsoleUnderSystemd(t *testing.T) {
	where := image(t, map[string]string{"usr/lib/systemd/systemd": ""})
	f := testFacts()
	f.ConsoleLogin = true
	r := apply(t, where, builtins(t), f)["console"]
	if len(r.Files) != 2 || !strings.Contains(read(t, where, "/run/systemd/system/getty@tty1.service.d/viver.conf"), "--autologin root") {
		t.Errorf("%+v", r)
	}
	// An image may have systemd and run another init, which that directory would confuse.
	where = image(t, map[string]string{"usr/lib/systemd/systemd": "", "etc/network/interfaces": ""})
	f.Init = "sysvinit"
	apply(t, where, builtins(t), f)
	if _, err := os.Stat(filepath.Join(where.Run, "systemd/system")); err == nil {
		t.Error("/run/systemd/system is there, where systemd will not be process 1")
	}
}

func TestX11Driver(t *testing.T) {
	for _, test := range []struct {
		driver string
		fb     bool
		files  map[string]string
		want   string
	}{
		{"i915", true, nil, "modesetting"},
		{"", true, nil, "fbdev"},
		{"", false, nil, "vesa"},
		{"nvidia-drm", true, nil, "modesetting"},
		{"nvidia-drm", true, map[string]string{"usr/lib/xorg/modules/drivers/nvidia_drv.so": ""}, "nvidia"},
	} {
		files := map[string]string{"usr/bin/Xorg": ""}
		for k, v := range test.files {
			files[k] = v
		}
		where := image(t, files)
		apply(t, where, builtins(t), Facts{GraphicsDriver: test.driver, Framebuffer: test.fb})
		if got := read(t, where, "/etc/X11/xorg.conf.d/10-viver.conf"); !strings.Contains(got, `Driver "`+test.want+`"`) {
			t.Errorf("%+v: %s", test, got)
		}
	}
}

func TestBuiltinsOnAnEmptyRoot(t *testing.T) {
	where := image(t, nil)
	results := apply(t, where, builtins(t), Facts{})
	want := map[string]Outcome{"hostname": Skipped, "network": Skipped, "x11": Skipped, "identity": Skipped, "hostkeys": Skipped, "knownhosts": Skipped, "bootloader": Applied, "ssh": Applied, "console": Applied}
	for name, outcome := range want {
		if r := results[name]; r.Outcome != outcome || len(r.Files) != 0 {
			t.Errorf("%s: %+v, want %s and no files", name, r, outcome)
		}
	}
	for _, dir := range []string{where.Root, where.Run} {
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s holds %v", dir, left)
		}
	}
}

func TestResolvConfOfTheDistributionStays(t *testing.T) {
	where := image(t, map[string]string{
		"etc/resolv.conf":                  "->../run/systemd/resolve/stub-resolv.conf",
		"usr/lib/systemd/systemd-resolved": "",
	})
	apply(t, where, builtins(t), testFacts())
	if link, err := os.Readlink(filepath.Join(where.Root, "etc/resolv.conf")); err != nil || !strings.HasPrefix(link, "../run") {
		t.Errorf("resolv.conf: %q, %v", link, err)
	}
	if got := read(t, where, "/run/systemd/resolved.conf.d/viver.conf"); !strings.Contains(got, "DNS=10.77.0.1 10.77.0.2\nDomains=lab.example\n") {
		t.Errorf("resolved: %q", got)
	}
}

// TestNameServersOfAnotherNetwork boots an image that was made in a network with
// a name server, here with and without one.
func TestNameServersOfAnotherNetwork(t *testing.T) {
	const there = "search home.example\nnameserver 192.168.178.1\noptions edns0\n"
	for _, dns := range [][]string{{"10.77.0.1"}, nil} {
		where := image(t, map[string]string{
			"etc/resolv.conf":                       there,
			"etc/NetworkManager/":                   "",
			"etc/resolvconf/resolv.conf.d/base":     "",
			"etc/resolvconf/resolv.conf.d/original": there,
			"etc/resolvconf.conf":                   "resolv_conf=/etc/resolv.conf\nname_servers=\"192.168.178.1\" # viver\n", // of an earlier boot
			"usr/lib/systemd/systemd-resolved":      "",
		})
		f := testFacts()
		f.DNS, f.Domain = dns, ""
		apply(t, where, builtins(t), f)
		for _, name := range []string{"/etc/resolv.conf", "/etc/resolvconf/resolv.conf.d/base", "/etc/resolvconf/resolv.conf.d/original", "/etc/resolvconf.conf",
			"/run/NetworkManager/conf.d/viver-dns.conf", "/run/systemd/resolved.conf.d/viver.conf"} {
			text := read(t, where, name)
			if strings.Contains(text, "192.168.178.1") || strings.Contains(text, "home.example") {
				t.Errorf("%v: %s still holds %q", dns, name, text)
			}
			if here := strings.Contains(text, "10.77.0.1"); here != (dns != nil) && !strings.HasSuffix(name, "original") {
				t.Errorf("%v: %s holds %q", dns, name, text)
			}
		}
		if text := read(t, where, "/etc/resolvconf.conf"); !strings.HasPrefix(text, "resolv_conf=/etc/resolv.conf\n") {
			t.Errorf("openresolv's own settings: %q", text)
		}
	}
}

func TestPackageScriptsEndWell(t *testing.T) {
	where := image(t, map[string]string{"usr/sbin/update-grub": "#!/bin/sh\nexit 1\n", "etc/initramfs-tools/conf.d/": "", "usr/local/sbin/": ""})
	apply(t, where, builtins(t), testFacts())
	if out, err := exec.CommandContext(t.Context(), filepath.Join(where.Root, "usr/local/sbin/update-grub")).CombinedOutput(); err != nil || !strings.Contains(string(out), "nothing to do") {
		t.Errorf("update-grub: %v: %s", err, out)
	}
	if text := read(t, where, "/etc/initramfs-tools/conf.d/viver"); !strings.HasPrefix(text, "MODULES=most ") {
		t.Errorf("update-initramfs reads %q", text)
	}
}
