package distribution

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestOf(t *testing.T) {
	both := fstest.MapFS{
		"etc/os-release":     {Data: []byte("# a comment\nNAME='Rocky Linux'\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nPRETTY_NAME=\"Rocky \\\"Green\\\" 9\"\n")},
		"usr/lib/os-release": {Data: []byte("ID=other\n")},
	}
	d := Of(both)
	if d.ID != "rocky" || strings.Join(d.Like, " ") != "rhel centos fedora" || d.Name != `Rocky "Green" 9` || d.String() != d.Name {
		t.Errorf("got %+v", d)
	}
	delete(both, "etc/os-release")
	if d := Of(both); d.ID != "other" || d.String() != "other" {
		t.Errorf("got %+v", d)
	}
	if d := Of(fstest.MapFS{}); d.String() == "" {
		t.Errorf("got %+v", d)
	}
}

// TestPackages asks for distributions of the table, and for some made of them.
func TestPackages(t *testing.T) {
	const fedora = "6.10.3-200.fc40.x86_64"
	for osRelease, want := range map[string]string{
		"ID=debian":                               "linux-image-amd64",
		"ID=ubuntu\nID_LIKE=debian":               "linux-modules-extra-" + fedora,
		"ID=linuxmint\nID_LIKE=\"ubuntu debian\"": "linux-modules-extra-" + fedora,
		"ID=fedora":                               "kernel-modules-" + fedora,
		"ID=rhel\nID_LIKE=fedora":                 "kernel-modules-" + fedora,
		"ID=manjaro\nID_LIKE=arch":                "linux-lts",
		"ID=alpine":                               "linux-lts",
		"ID=opensuse-leap\nID_LIKE=suse opensuse": "kernel-default",
		"ID=sles\nID_LIKE=suse":                   "kernel-default",
		"ID=\"void\"":                             "linux",
		"ID=gentoo":                               "sys-kernel/gentoo-kernel-bin",
		"ID=nixos":                                "boot.kernelPackages",
	} {
		p := Parse(osRelease).Packages(fedora)
		if !strings.Contains(p.Modules, want) || strings.Contains(p.Modules, release) || p.Kernel == "" || p.Init == "" {
			t.Errorf("%q: %+v, want %q", osRelease, p, want)
		}
	}
	if p := Parse("ID=unheard\n").Packages(""); p.Kernel == "" || p.Modules == "" || p.Init == "" {
		t.Errorf("an unknown one: %+v", p)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("ID=x\nID_LIKE='a b'\nPRETTY_NAME=\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		if d := Parse(text); strings.Contains(d.ID, "\n") {
			t.Errorf("%q", d.ID)
		}
	})
}
