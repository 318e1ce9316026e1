package initsystem

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOf lays roots as distributions do; "->" makes a link.
func TestOf(t *testing.T) {
	for _, test := range []struct {
		want  Kind
		files map[string]string
	}{
		{Systemd, map[string]string{"sbin/init": "->../lib/systemd/systemd", "lib/systemd/systemd": ""}},
		{Systemd, map[string]string{"sbin/init": "->/usr/lib/systemd/systemd", "usr/lib/systemd/systemd": "", "etc/inittab": "x"}},
		// Debian with sysvinit-core and, for its libraries, systemd beside it.
		{SysVInit, map[string]string{"sbin/init": "", "lib/systemd/systemd": "", "etc/inittab": "id:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\n"}},
		// Debian with OpenRC: the init and its inittab are the same, the script is not.
		{OpenRC, map[string]string{"sbin/init": "", "etc/inittab": "id:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\n", "etc/init.d/rcS": "#!/bin/sh\nset -e\nexec /sbin/openrc sysinit\n"}},
		{SysVInit, map[string]string{"sbin/init": "", "etc/inittab": "id:2:initdefault:\nsi::sysinit:/etc/init.d/rcS\n", "etc/init.d/rcS": "#!/bin/sh\nexec /etc/init.d/rc S\n"}},
		{OpenRC, map[string]string{"sbin/init": "->/bin/busybox", "bin/busybox": "", "etc/inittab": "::sysinit:/sbin/openrc sysinit\n"}},
		{OpenRC, map[string]string{"sbin/init": "->openrc-init", "sbin/openrc-init": ""}},
		{BusyBox, map[string]string{"sbin/init": "->/bin/busybox", "bin/busybox": "", "etc/inittab": "# /sbin/openrc sysinit\n::sysinit:/etc/init.d/rcS\n"}},
		// NixOS; the link is made with the image.
		{Systemd, map[string]string{"sbin/init": "->/nix/var/nix/profiles/system/init", "nix/var/nix/profiles/system": "->/nix/store/a-nixos-system", "nix/store/a-nixos-system/init": "",
			"nix/store/a-nixos-system/systemd": "->/nix/store/b-systemd", "nix/store/b-systemd/lib/systemd/systemd": ""}},
		{Runit, map[string]string{"sbin/init": "->runit-init", "sbin/runit-init": ""}},
		{Other, map[string]string{"sbin/init": ""}},
		{Other, map[string]string{"sbin/init": "->init"}},
		{Other, nil},
	} {
		root := t.TempDir()
		for name, content := range test.files {
			if err := lay(filepath.Join(root, name), content); err != nil {
				t.Fatal(err)
			}
		}
		if got := Of(root, "/sbin/init"); got != test.want {
			t.Errorf("%v: %s, want %s", test.files, got, test.want)
		}
	}
}

func lay(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if target, ok := strings.CutPrefix(content, "->"); ok {
		return os.Symlink(target, path)
	}
	return os.WriteFile(path, []byte(content), 0o755)
}
