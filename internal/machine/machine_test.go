package machine

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMountErrorSaysWhatIsMissing(t *testing.T) {
	for errno, words := range map[error]string{
		unix.ENODEV: "the kernel has no squashfs",
		unix.EINVAL: "not a sound squashfs",
		unix.EACCES: "write-protected",
		unix.EIO:    "mount squashfs /dev/nbd0 on /lower: input/output error",
	} {
		err := error(&MountError{Source: "/dev/nbd0", Target: "/lower", FSType: "squashfs", Err: errno})
		if !strings.Contains(err.Error(), words) || !errors.Is(err, errno) {
			t.Errorf("%v: %q does not say %q", errno, err, words)
		}
	}
}

func TestPath(t *testing.T) {
	if got := (Host{}).Path("/sys/block"); got != "/sys/block" {
		t.Errorf("Path = %s", got)
	}
	if got := (Host{Root: "/tmp/x"}).Path("/sys/block"); got != "/tmp/x/sys/block" {
		t.Errorf("Path = %s", got)
	}
}

func TestRootLoopShowsAWindow(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("loop devices need root")
	}
	path := filepath.Join(t.TempDir(), "disk")
	data := []byte(strings.Repeat("a", 4096) + strings.Repeat("b", 4096) + strings.Repeat("c", 4096))
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	loop, err := Host{}.OpenLoop(path, 4096, 4096)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(loop.Path)
	if err != nil || string(got) != strings.Repeat("b", 4096) {
		t.Errorf("the window shows %d bytes %.8q…, %v", len(got), got, err)
	}
	if f, err := os.OpenFile(loop.Path, os.O_RDWR, 0); err == nil {
		if _, err := f.Write([]byte("x")); err == nil && f.Sync() == nil {
			t.Error("the window can be written")
		}
		f.Close()
	}
	if err := loop.Close(); err != nil {
		t.Error(err)
	}
	if after, _ := os.ReadFile(path); string(after) != string(data) {
		t.Error("the file was changed")
	}
}
