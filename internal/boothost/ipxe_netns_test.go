package boothost

import (
	"path/filepath"
	"testing"

	"viver.lan/internal/manifest"
)

// A UEFI machine with Secure Boot on, whose image has an iPXE for UEFI and its shim.
func TestNetnsUEFIMachineByIPXE(t *testing.T) {
	if !inNetns(t, "udhcpc", "curl") {
		return
	}
	b := newBench(t, func(c *Config) {
		c.Image = imageOf(map[string]int{manifest.Kernel: 3<<20 + 17, manifest.Initramfs: 5 << 20,
			"boot/undionly.kpxe": 70_000, "boot/shimx64.efi": 1_000_001, "boot/grubx64.efi": 100_001, "boot/ipxe-shimx64.efi": 1_000_002, "boot/ipxe.efi": 300_003})
	})
	files := filepath.Join(b.dir, "files")
	b.image.write(t, files)
	script, err := filepath.Abs("testdata/machine.sh")
	if err != nil {
		t.Fatal(err)
	}
	if said := b.at("sh", script, "uefi-ipxe", files, "pc"); said != "" {
		t.Errorf("it did not boot at once:\n%s", said)
	}
}
