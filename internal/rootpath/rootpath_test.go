package rootpath

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"
)

func TestResolve(t *testing.T) {
	links := map[string]string{"/sbin": "usr/sbin", "/usr/sbin/init": "/lib/init", "/lib": "usr/lib", "/up": "../../../etc", "/loop": "loop"}
	readlink := func(name string) (string, error) {
		if name == "/file/x" {
			return "", syscall.ENOTDIR
		}
		if target, ok := links[name]; ok {
			return target, nil
		}
		return "", fs.ErrNotExist
	}
	for name, want := range map[string]string{
		"/sbin/init": "/usr/lib/init", "sbin/./x//y": "/usr/sbin/x/y", "/up/z": "/etc/z", "/lib/..": "/usr", "../..": "/", "/none/up": "/none/up",
	} {
		if got, err := Resolve(name, readlink); got != want || err != nil {
			t.Errorf("%s leads to %q, %v; want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]error{"/loop/x": syscall.ELOOP, "/file/x": syscall.ENOTDIR} {
		if got, err := Resolve(name, readlink); !errors.Is(err, want) {
			t.Errorf("%s leads to %q, %v; want %v", name, got, err, want)
		}
	}
}
