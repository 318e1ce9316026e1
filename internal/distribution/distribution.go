// Package distribution says which distribution a Linux is, by os-release(5), and what
// its packages are called that an image needs.
//
// It looks at no package database and asks no network: the names are a table here, and
// advice for people. The invariant: a distribution that is not in the table gets words
// that are true of each, never the names of another.
package distribution

import (
	"io/fs"
	"strings"
)

// Distribution is what a Linux says of itself.
type Distribution struct {
	// ID is its name in a word, Like are those that it is made of, the nearest first.
	ID   string
	Like []string
	// Name is for people, "" for none.
	Name string
}

// Files are where os-release may be; the first that exists counts.
func Files() []string { return []string{"etc/os-release", "usr/lib/os-release"} }

// Of reads os-release of a Linux. One that has none has no name.
func Of(linux fs.FS) Distribution {
	for _, name := range Files() {
		if data, err := fs.ReadFile(linux, name); err == nil {
			return Parse(string(data))
		}
	}
	return Distribution{}
}

// Parse reads the lines of os-release(5), whose values a shell would unquote. A
// later line of the same name counts, as it does for a shell.
func Parse(text string) Distribution {
	var d Distribution
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		value = unquoted(value)
		switch key {
		case "ID":
			d.ID = value
		case "ID_LIKE":
			d.Like = strings.Fields(value)
		case "PRETTY_NAME":
			d.Name = value
		}
	}
	return d
}

func unquoted(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		s = s[1 : len(s)-1]
	}
	return strings.NewReplacer(`\"`, `"`, `\$`, `$`, `\\`, `\`, "\\`", "`").Replace(s)
}

// Packages are what to install, each in the words of the distribution.
type Packages struct {
	// Kernel has a kernel with its modules.
	Kernel string
	// Modules has the modules that a smaller kernel of the distribution lacks.
	Modules string
	// Init has /sbin/init.
	Init string
}

// release stands in Packages for that of the kernel.
const release = "RELEASE"

// packages are by the ID of a distribution, or of one that others are made of.
var packages = map[string]Packages{
	"debian": {
		Kernel:  "linux-image-amd64",
		Modules: "linux-image-amd64 (linux-image-cloud-amd64 has fewer modules)",
		Init:    "systemd-sysv or sysvinit-core",
	},
	"ubuntu": {
		Kernel:  "linux-image-generic",
		Modules: "linux-modules-extra-" + release + " (or linux-image-generic in place of linux-image-virtual)",
		Init:    "systemd-sysv",
	},
	"fedora": {
		Kernel:  "kernel",
		Modules: "kernel-modules-" + release + " (beside kernel-core), and kernel-modules-extra-" + release + " for rare ones",
		Init:    "systemd",
	},
	"arch": {
		Kernel:  "linux or linux-lts",
		Modules: "linux or linux-lts",
		Init:    "systemd-sysvcompat",
	},
	"alpine": {
		Kernel:  "linux-lts",
		Modules: "linux-lts (linux-virt has fewer modules)",
		Init:    "alpine-base",
	},
	"suse": {
		Kernel:  "kernel-default",
		Modules: "kernel-default (kernel-default-base has fewer modules), and kernel-default-optional where there is one",
		Init:    "systemd-sysvcompat, before Leap 16 systemd-sysvinit",
	},
	"void": {
		Kernel:  "linux",
		Modules: "linux",
		Init:    "runit-void",
	},
	"gentoo": {
		Kernel:  "sys-kernel/gentoo-kernel-bin",
		Modules: "sys-kernel/gentoo-kernel-bin, or build your own kernel with these options",
		Init:    "sys-apps/sysvinit and sys-apps/openrc, or sys-apps/systemd",
	},
	"nixos": {
		Kernel:  "a system by nixos-install (boot.kernelPackages; its profile is /nix/var/nix/profiles/system)",
		Modules: "boot.kernelPackages = pkgs.linuxPackages, whose kernel has them all",
		Init:    "a system by nixos-install (its profile is /nix/var/nix/profiles/system)",
	},
}

// Packages returns the names of packages for a kernel release, "" for none yet.
func (d Distribution) Packages(kernel string) Packages {
	for _, id := range append([]string{d.ID}, d.Like...) {
		if strings.HasPrefix(id, "opensuse") {
			id = "suse"
		}
		p, ok := packages[id]
		if !ok {
			continue
		}
		if kernel != "" {
			p.Modules = strings.ReplaceAll(p.Modules, release, kernel)
		}
		return p
	}
	return Packages{
		Kernel:  "the distribution's kernel package",
		Modules: "the rest of the kernel's modules, often in a package of their own",
		Init:    "an init system",
	}
}

// String is its name for people.
func (d Distribution) String() string {
	switch {
	case d.Name != "":
		return d.Name
	case d.ID != "":
		return d.ID
	}
	return "a distribution without a name (it has no /etc/os-release)"
}
