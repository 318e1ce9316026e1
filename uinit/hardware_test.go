package main

import "testing"

func TestForDisks(t *testing.T) {
	for file, want := range map[string]bool{
		"kernel/drivers/ata/ahci.ko": true, "kernel/drivers/nvme/host/nvme.ko": true, "kernel/drivers/scsi/sd_mod.ko": true,
		"kernel/drivers/usb/storage/uas.ko": true, "kernel/drivers/block/virtio_blk.ko": true,
		"kernel/drivers/usb/host/xhci-pci.ko": false, "kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko": false,
		"kernel/drivers/virtio/virtio_pci.ko": false, "kernel/fs/ext4/ext4.ko": false, "ata/ahci.ko": false, "": false,
	} {
		if got := forDisks(file); got != want {
			t.Errorf("%s is for disks: %v", file, got)
		}
	}
}
