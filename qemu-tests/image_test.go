package scenarios

import (
	"os"
	"path/filepath"
	"testing"

	"viver.lan/qemu-tests/harness"
)

// inside is run in namespaces of its own, with the test's directory as what
// will be the whole system.
const inside = `set -e
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
cd "$1"
export HOME=/root
exec chroot . /usr/bin/viver image build / -o /srv/mylab`

// The system that the tool itself runs on becomes an image, a medium, a stick:
// README's "Your own Linux", step by step.
func TestRunningSystemBecomesAStick(t *testing.T) {
	harness.Need(t, "unshare", "chroot", "mksquashfs", "ldd")
	root := t.TempDir()
	system := filepath.Join(root, "system")
	shell(t, root, "cp -a "+out(t, "trees", "tiny")+" system && mkdir -p system/usr/bin system/usr/lib/viver system/srv system/dev system/proc system/tmp")
	// The tool, what it ships beside it, and the one program it calls.
	shell(t, root, "cp "+out(t, "bin", "viver")+" system/usr/bin/ && cp -r "+out(t, "lib")+"/. system/usr/lib/viver/")
	shell(t, root, `program=$(command -v mksquashfs) && cp "$program" system/usr/bin/ && { ldd "$program"; ldconfig -p | grep -o "/.*/libgcc_s.so.1"; } | grep -o '/[^ ]*' | while read -r library; do
		mkdir -p "system$(dirname "$library")" && cp -L "$library" "system$library"; done`)
	shell(t, root, "unshare --map-root-user --mount --pid --fork sh -c '"+inside+"' sh "+system)

	image := filepath.Join(system, "srv", "mylab")
	owner := filepath.Join(system, "root", ".config", "viver", "owner.pub")
	viver(t, "image", "verify", image, "--public", owner)
	iso, stick := filepath.Join(root, "mylab.iso"), filepath.Join(root, "stick")
	viver(t, "medium", "build", image, "-o", iso, "--public", owner)
	if err := os.WriteFile(stick, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	viver(t, "medium", "write", iso, stick)
	shell(t, root, "cmp "+iso+" "+stick)
}
