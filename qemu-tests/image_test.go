package scenarios

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"viver.lan/internal/manifest"
	"viver.lan/qemu-tests/harness"
)

// classes are what the initramfs may hold modules of, below kernel/: what stands
// between a PC and its disks, its wired network and its keyboard.
var classes = regexp.MustCompile(`^(arch|block|crypto|lib|net/core|net/xfrm|net/packet|` +
	`drivers/(ata|block|cdrom|char|dca|hid|hv|i2c|input|message|misc|mmc|nvme|pci|pcmcia|scsi|ssb|usb|virtio)|` +
	`drivers/net/(ethernet|hyperv|mdio|pcs|phy|usb|vmxnet3|[^/]*$)|` +
	`fs/(btrfs|configfs|efivarfs|exfat|ext4|fat|isofs|jbd2|nls|ntfs3|overlayfs|squashfs|udf|xfs|[^/]*$))`)

// Every machine fetches the initramfs with what its firmware has for a network.
// It holds nothing of another class, and packed it is a quarter of what it
// holds: with a weak compressor, or modules that are compressed inside, it is
// more.
func TestInitramfsIsSmall(t *testing.T) {
	for _, image := range []string{"tiny", "debian"} {
		packed, err := os.ReadFile(out(t, image, manifest.Initramfs))
		if err != nil {
			t.Fatal(err)
		}
		stream := bytes.Index(packed, []byte{0x28, 0xb5, 0x2f, 0xfd}) // after the owner's key
		if stream < 0 {
			t.Fatalf("the initramfs of %s is not packed with zstd", image)
		}
		z, err := zstd.NewReader(bytes.NewReader(packed[stream:]))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(z)
		z.Close()
		if err != nil {
			t.Fatal(err)
		}
		// In the archive a name ends with a NUL, in depmod's tables it does not.
		modules := regexp.MustCompile(`lib/modules/[^/\x00]+/kernel/([^\x00\n ]+\.ko[^\x00\n ]*)\x00`).FindAllSubmatch(plain, -1)
		if len(modules) < 100 {
			t.Errorf("the initramfs of %s holds %d modules only", image, len(modules))
		}
		for _, m := range modules {
			if name := string(m[1]); !classes.MatchString(name) || !strings.HasSuffix(name, ".ko") {
				t.Errorf("the initramfs of %s holds %s", image, name)
			}
		}
		share := 100 * float64(len(packed)) / float64(len(plain))
		t.Logf("initramfs of %s: %d bytes, %.1f %% of the %d it holds, %d modules", image, len(packed), share, len(plain), len(modules))
		if share > 25 {
			t.Errorf("the initramfs of %s has %.1f %% of the bytes that it holds, want 25 at most", image, share)
		}
	}
}

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
