package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/blockdev"
	"viver.lan/internal/control"
	"viver.lan/internal/disks"
	"viver.lan/internal/event"
	"viver.lan/internal/sleep"
)

// vfield writes what the daemons need, and lets the block daemon begin. When it is tried
// again, it continues where it failed.
func (n *node) vfield(context.Context) (string, error) {
	n.nameNode()
	n.boot.Memory = pieceMemory(n.machine.Memory, n.settings.Memory, n.image.Size())
	cache := n.useCache()
	if n.vfieldStart != nil { // from then on the daemons write the state
		if err := n.writeState(); err != nil {
			return "", err
		}
		if err := n.mountPieces(); err != nil {
			return "", err
		}
		if err := begin(n.host, n.vfieldStart); err != nil {
			return "", err
		}
		n.vfieldStart = nil
	}
	return fmt.Sprintf("memory for %d MB of %d%s", n.boot.Memory>>20, n.image.Size()>>20, cache), nil
}

// writeState writes what the daemons read.
func (n *node) writeState() error {
	n.boot.Pool = servedPool(n.net.Lease, n.settings.Pool)
	n.boot.KernelArguments = n.settings.KernelArguments
	n.boot.FirewallOpen = n.settings.FirewallOpen
	n.boot.DHCP = string(dhcpMode(n.net, n.settings.DHCP))
	n.boot.Settings = n.config.List()
	n.boot.MachineMemory, n.boot.CPUs = n.machine.Memory, n.machine.Threads
	saved, _ := disks.InOrder(n.found, n.image.RootFile().SHA256)
	n.boot.Lacking = n.lacking()
	for _, sentence := range n.boot.Lacking {
		n.log.Warn("hardware: " + sentence)
	}
	n.boot.Features = features(n.machine, saved, n.boot.Cache != "", time.Now().After(n.image.Created))
	n.events.Emit(event.Node{Hostname: n.boot.Hostname, MAC: n.boot.MAC, Address: n.net.Lease.Address.Addr().String(),
		Firmware: n.boot.Firmware, BootedBy: n.boot.BootedBy})
	if err := n.takeIdentity(); err != nil {
		return err
	}
	return errors.Join(
		control.WriteState(control.BootNetworkFile, n.net),
		control.WriteState(control.BootFile, &n.boot))
}

// mountPieces makes room for pieces in memory.
func (n *node) mountPieces() error {
	if err := os.MkdirAll(control.PieceDir, 0o700); err != nil {
		return fmt.Errorf("make room for pieces: %w", err)
	}
	// Somewhat more than the budget: tmpfs counts pages, not bytes.
	size := fmt.Sprintf("mode=0700,size=%d", n.boot.Memory+16<<20)
	return n.host.Mount("pieces", control.PieceDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, size)
}

// attach waits for the root disk and reads both of its ends, so that a disk
// that cannot be read is found here and not by the file system.
func (n *node) attach(ctx context.Context) (string, error) {
	device, err := awaitDevice(ctx)
	if err != nil {
		return "", err
	}
	n.rootDevice = device
	if err := blockdev.Probe(ctx, device, rootSize(n.image)); err != nil {
		return "", err
	}
	return device, nil
}

// awaitDevice waits until the block daemon has attached the root disk.
func awaitDevice(ctx context.Context) (string, error) {
	for {
		if text, err := os.ReadFile(control.DeviceFile); err == nil {
			return strings.TrimSpace(string(text)), nil
		}
		if sleep.For(ctx, 20*time.Millisecond) != nil {
			return "", fmt.Errorf("the block daemon is not ready: %w", whyNotAttached(context.WithoutCancel(ctx)))
		}
	}
}

// whyNotAttached asks the block daemon for its progress.
func whyNotAttached(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	status, err := control.NewClient(control.Socket).Status(ctx)
	if err != nil {
		return err
	}
	return fmt.Errorf("%d of %d pieces, %d peers", status.Transfer.Have, status.Transfer.Pieces, status.Transfer.Peers)
}
