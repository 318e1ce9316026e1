package scenarios

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"viver.lan/internal/manifest"
	"viver.lan/qemu-tests/harness"
)

// The block device on a real kernel, alone in a guest that runs the cases of
// guests/blockdev: concurrent reads, ended connections, kill -9 of the server,
// stalls, a foreign disconnect. No network, no disk. It computes all the time and each
// case has a deadline, so no other scenario runs beside it.
func TestBlockDeviceOnARealKernel(t *testing.T) {
	harness.Need(t, "cpio", "mksquashfs")
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	for _, name := range []string{"dev", "proc", "sys", "run", "modules"} {
		if err := os.MkdirAll(filepath.Join(tree, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	modules := out(t, "trees", "tiny", "lib", "modules")
	shell(t, root, "CGO_ENABLED=0 go build -o "+tree+"/init ./qemu-tests/guests/blockdev")
	shell(t, root, "mksquashfs internal "+tree+"/init "+tree+"/image.squashfs -comp zstd -quiet -no-progress")
	shell(t, root, "cp "+modules+"/*/kernel/drivers/block/nbd.ko "+modules+"/*/kernel/fs/squashfs/squashfs.ko "+modules+"/*/kernel/fs/overlayfs/overlay.ko "+tree+"/modules/")
	initrd := filepath.Join(dir, "initrd.cpio")
	shell(t, tree, "find . | cpio --quiet -o -H newc > "+initrd)

	lab := harness.New(t, harness.Options{})
	vm := start(t, lab, harness.Config{Name: "guest", Kernel: out(t, "tiny", manifest.Kernel), Initrd: initrd,
		Append: "console=ttyS0 quiet panic=-1"})
	summary, err := vm.WaitConsole(t.Context(), `\{"done":.*\}\r?\n`)
	if err != nil {
		t.Fatal(err)
	}
	for _, detail := range regexp.MustCompile(`"case":"\w+".*"detail":".*"`).FindAllString(vm.Console().Text(), -1) {
		t.Log(detail)
	}
	if ok, _ := regexp.MatchString(`"ok":true`, summary); !ok {
		t.Errorf("%s\n%s", summary, vm.Console().Text())
	}
}
