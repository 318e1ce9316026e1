package diskroot

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/testlinux"
)

// openDisk opens x, a disk that a script makes in an empty directory.
func openDisk(t *testing.T, script string) (*Root, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a disk")
	}
	if out, err := exec.Command("losetup", "-f").CombinedOutput(); err != nil {
		t.Skipf("no loop devices here: %s", out)
	}
	dir := t.TempDir()
	testlinux.Run(t, "sh", "-ec", "cd "+dir+`
export PATH=$PATH:/usr/sbin:/sbin
mkdir -p root/etc root/usr/lib root/home
echo 'PRETTY_NAME="Lab 1"' >root/etc/os-release
`+script)
	disk, err := os.Open(filepath.Join(dir, "x"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	r, err := Open(t.Context(), disk, "", t.TempDir())
	if err == nil {
		t.Cleanup(func() { r.Close() })
	}
	return r, err
}

// An error in a stranger's file system does not stop this machine, even if its superblock says so.
func TestErrorsDoNotStopTheMachine(t *testing.T) {
	r, err := openDisk(t, `truncate -s 8M x; mkfs.ext4 -q -d root x; tune2fs -e panic x >/dev/null`)
	if err != nil {
		t.Fatal(err)
	}
	err = r.Do(func(dir string) error {
		data, err := os.ReadFile("/proc/thread-self/mountinfo")
		for line := range strings.Lines(string(data)) {
			if strings.Contains(line, " "+dir+" ") && strings.Contains(line, "errors=continue") {
				return err
			}
		}
		t.Errorf("mounted:\n%s", data)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
