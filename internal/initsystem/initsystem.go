// Package initsystem says which service manager a root is going to have.
//
// The answer is found before process 1 starts, from its program: whoever asks for paths
// such as /run/systemd/system instead finds what an image has installed, which is more
// than what it runs. It starts and stops nothing.
//
// The invariant: it is decided from the program that will be process 1, links followed
// inside the root, and never from what else the image has.
package initsystem

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"

	"viver.lan/internal/rootpath"
)

// Kind is a service manager.
type Kind string

// The kinds.
const (
	Systemd  Kind = "systemd"
	SysVInit Kind = "sysvinit"
	OpenRC   Kind = "openrc" // also when another init only starts it, as on Alpine and Debian
	Runit    Kind = "runit"
	BusyBox  Kind = "busybox"
	Other    Kind = "other"
)

// Kinds returns all of them.
func Kinds() []Kind { return []Kind{Systemd, SysVInit, OpenRC, Runit, BusyBox, Other} }

// KindNames lists them for messages.
func KindNames() string {
	var list []string
	for _, k := range Kinds() {
		list = append(list, string(k))
	}
	return strings.Join(list, ", ")
}

// maxText bounds what is read of a file of the image.
const maxText = 64 << 10

// Of returns what the root's init is; init is its path, as seen from inside the root.
func Of(root, init string) Kind {
	program, err := rootpath.In(root, init)
	if err != nil {
		return Other
	}
	inittab := read(root, "/etc/inittab")
	name := filepath.Base(program)
	openRC := startsOpenRC(inittab) || debianOpenRC(root, inittab)
	switch {
	case name == "systemd":
		return Systemd
	case name == "init" && isNixSystem(root, filepath.Dir(program)):
		return Systemd
	case strings.HasPrefix(name, "runit"):
		return Runit
	case name == "openrc-init", (name == "busybox" || name == "init") && openRC:
		return OpenRC
	case name == "busybox":
		return BusyBox
	case name == "init" && len(inittab) > 0:
		return SysVInit
	}
	return Other
}

// isNixSystem reports whether dir is a system of NixOS, whose init starts the systemd
// beside it.
func isNixSystem(root, dir string) bool {
	program, err := rootpath.In(root, filepath.Join("/", dir, "systemd/lib/systemd/systemd"))
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(root, program))
	return err == nil
}

// startsOpenRC reports whether a line of a script or inittab does so.
func startsOpenRC(text []byte) bool {
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); !bytes.HasPrefix(line, []byte("#")) && bytes.Contains(line, []byte("/openrc ")) {
			return true
		}
	}
	return false
}

// debianOpenRC reports whether the script that Debian's inittab has always started is
// OpenRC's.
func debianOpenRC(root string, inittab []byte) bool {
	const script = "/etc/init.d/rcS"
	return bytes.Contains(inittab, []byte(":sysinit:"+script)) && startsOpenRC(read(root, script))
}

// read returns a file of the root as far as it can be read, nothing if it is not there.
func read(root, name string) []byte {
	name, err := rootpath.In(root, name)
	if err != nil {
		return nil
	}
	f, err := os.Open(filepath.Join(root, name))
	if err != nil {
		return nil // the image has none
	}
	defer f.Close()
	data, _ := io.ReadAll(io.LimitReader(f, maxText)) // as far as it goes
	return data
}
