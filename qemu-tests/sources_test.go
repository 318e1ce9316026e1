package scenarios

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/manifest"
	"viver.lan/qemu-tests/harness"
)

// guestInit runs those tests of two packages that need a device mapper, which the kernel of a container or a small
// virtual machine often lacks.
const guestInit = `#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ TMPDIR=/tmp
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp; mount -t tmpfs run /run; ln -s /proc/self/fd /dev/fd
while read -r module; do insmod "/modules/$module" 2>/dev/null; done </modules/order
[ -e /dev/mapper/control ] || { mkdir -p /dev/mapper; mknod /dev/mapper/control c 10 236; }
export DM_DISABLE_UDEV=1
mkdir -p /etc/lvm; echo 'global { thin_check_executable = "" } activation { udev_sync = 0 udev_rules = 0 monitoring = 0 } devices { obtain_device_list_from_udev = 0 }' >/etc/lvm/lvm.conf
for tests in /*.test; do "$tests" -test.v -test.run DeviceMapper; ended="$ended $?"; done
echo "tests ended:$ended"
sleep 100
`

// Disks with LUKS and LVM as sources of images, and a running system on thin volumes, on a kernel that has the device
// mapper. No network, no disk.
func TestEncryptedDisks(t *testing.T) {
	t.Parallel()
	programs := []string{"sh", "mount", "umount", "mkdir", "ln", "mknod", "insmod", "sleep", "cat", "cp", "dd", "sync", "truncate", "losetup", "mkfs.ext4", "sfdisk", "blkid", "partx", "cryptsetup", "dmsetup", "lvm", "lvs", "lvcreate", "lvremove", "vgcreate", "vgremove", "pvck"}
	harness.Need(t, append([]string{"cpio", "ldd", "modprobe"}, programs...)...)
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	shell(t, dir, "mkdir -p tree/modules tree/usr/sbin tree/etc tree/proc tree/sys tree/dev tree/tmp tree/run; ln -s usr/sbin tree/sbin; ln -s usr/sbin tree/bin; touch tree/etc/fstab")
	shell(t, root, "CGO_ENABLED=0 go test -c -o "+tree+"/ ./internal/diskroot ./internal/livesnapshot")
	shell(t, tree, `export PATH=$PATH:/usr/sbin:/sbin
for name in `+strings.Join(programs, " ")+`; do
	program=$(command -v "$name"); cp -L "$program" "usr/sbin/$name"; { ldd "$program"; ldconfig -p | grep -o "/.*/libgcc_s.so.1"; } | grep -o '/[^ ]*'
done | sort -u | while read -r library; do
	mkdir -p ".$(dirname "$library")"; cp -L "$library" ".$library"
done
modules=`+out(t, "trees", "tiny")+`
release=$(ls "$modules/lib/modules")
modprobe --dirname "$modules" --set-version "$release" --show-depends --all loop ext4 dm_crypt dm_thin_pool dm_snapshot aes_generic xts cbc ecb essiv sha256_generic sha1_generic algif_skcipher algif_hash |
	sed -n 's/^insmod \([^ ]*\).*/\1/p' | while read -r module; do
	cp "$module" modules/; basename "$module"
done >modules/order`)
	if err := os.WriteFile(filepath.Join(tree, "init"), []byte(guestInit), 0o755); err != nil {
		t.Fatal(err)
	}
	initrd := filepath.Join(dir, "initrd.cpio")
	shell(t, tree, "find . | cpio --quiet -o -H newc > "+initrd)

	lab := harness.New(t, harness.Options{})
	vm := start(t, lab, harness.Config{Name: "guest", Kernel: out(t, "tiny", manifest.Kernel), Initrd: initrd, Memory: 1024, Append: "console=ttyS0 quiet panic=-1"})
	ended, err := vm.WaitConsole(t.Context(), `tests ended:[ \d]+\r?\n`)
	if err != nil {
		t.Fatal(err)
	}
	if text := vm.Console().Text(); !strings.Contains(ended, ": 0 0") || strings.Contains(text, "--- SKIP") || strings.Count(text, "--- PASS: TestDeviceMapper") != 4 {
		t.Errorf("%s\n%s", ended, text)
	}
}
