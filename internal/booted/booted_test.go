package booted

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestHasFollowsTheSystemsLinks(t *testing.T) {
	s := System{Process: t.TempDir()}
	in := func(name string) string { return filepath.Join(s.Root(), name) }
	err := errors.Join(os.MkdirAll(in("usr/bin"), 0o755), os.WriteFile(in("usr/bin/busybox-of-the-system"), nil, 0o755),
		os.Symlink("/usr/bin/busybox-of-the-system", in("usr/bin/wall")), os.Symlink("/bin/sh", in("usr/bin/elsewhere")))
	if err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string]bool{"/usr/bin/wall": true, "/usr/bin/busybox-of-the-system": true, "/usr/bin/none": false, "/usr/bin/elsewhere": false} {
		if got := s.Has(program); got != want {
			t.Errorf("the system has %s: %v, want %v", program, got, want)
		}
	}
}
