package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/config"
	"viver.lan/internal/control"
	"viver.lan/internal/disks"
	"viver.lan/internal/durable"
	"viver.lan/internal/manifest"
	"viver.lan/internal/media"
	"viver.lan/internal/runes"
)

// unnamedWait is how long a machine waits for a medium that its boot loader did not
// name: long enough for a slow stick.
const unnamedWait = 10 * time.Second

// medium finds the boot medium and reads its settings. A machine that a boot host
// started does not search: it is a node, whatever is plugged in.
func (n *node) medium(ctx context.Context) (string, error) {
	if host := n.argument(argHost); host != "" {
		return "a network-booted node, from " + host, nil
	}
	n.modules.Finish(ctx)
	if _, err := n.modules.Load(ctx, "isofs", "loop"); err != nil {
		n.log.Warn("a medium cannot be read", "error", err)
	}
	found, err := n.findMedium(ctx)
	if err != nil || tooLate(ctx) {
		return "", cmp.Or(err, errHangs)
	}
	n.boot.First = true
	if n.boot.Medium, err = imageOn(found, n.argument(argImage)); err != nil {
		return "", err
	}
	n.mediumDisk = found.Device.Disk
	root, memory := filepath.Join(n.boot.Medium, manifest.Root), n.machine.Memory
	n.background.Go(func(ctx context.Context) error {
		if err := readAhead(ctx, root, memory); err != nil {
			n.log.Warn("medium", "error", err)
		}
		return nil
	})
	detail := fmt.Sprintf("%s on %s: the first node", found.ID, found.Device.Name)
	if found.Note != "" {
		detail += "; " + found.Note
	}
	// A medium whose settings cannot be read still boots the network.
	if err := n.readSettings(found.Device); err != nil {
		n.log.Warn("settings volume of the medium not used", "error", err)
		detail += "; its settings volume cannot be read: " + err.Error()
	}
	return detail, nil
}

// imageOn returns the directory of the image that was chosen in the medium's menu, by
// its infohash; a medium with one image names none.
func imageOn(m *disks.Medium, chosen string) (string, error) {
	image := m.Image
	if chosen != "" {
		var err error
		if image, err = manifest.ParseInfohash(chosen); err != nil {
			return "", fmt.Errorf("%s= on the kernel command line: %w", media.ImageArgument, err)
		}
	}
	dir := filepath.Join(m.Dir, media.ImageDir(m.Image, image))
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("the medium %s lacks the image that its menu named: %w", m.ID, err)
	}
	return dir, nil
}

// findMedium searches for the medium. One that answers after unnamedWait, because it was
// spinning up, still counts: only the stage's own deadline makes that too late.
func (n *node) findMedium(ctx context.Context) (*disks.Medium, error) {
	want := n.argument(argMedium)
	if want == "" {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, unnamedWait)
		defer cancel()
	}
	return disks.FindMedium(ctx, n.host, want, mediumDir)
}

// readSettings reads viver.toml and the bundles from the medium's FAT volume,
// and saves both for the nodes that boot from this one.
func (n *node) readSettings(d disks.Device) (err error) {
	disk, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	defer disk.Close()
	volume, err := media.SettingsVolume(disk, d.Size)
	if err != nil {
		return err
	}
	loop, err := n.host.OpenLoop(d.Path, volume.Offset, volume.Size)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, loop.Close()) }()
	if err := os.MkdirAll(inspectDir, 0o700); err != nil {
		return err
	}
	if err := n.host.Mount(loop.Path, inspectDir, "vfat", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.host.Unmount(inspectDir, 0)) }()

	toml, err := os.ReadFile(filepath.Join(inspectDir, media.SettingsPath))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	n.config.AddTOML(config.Medium, toml)
	if err := durable.WriteFile(control.SettingsFile, toml, 0o644); err != nil {
		return err
	}
	return n.saveRunes(filepath.Join(inspectDir, media.RunesPath))
}

// saveRunes packs the medium's bundles. A broken one is left out, and the stage runes
// says so; the others are used.
func (n *node) saveRunes(dir string) error {
	var bundles []runes.Bundle
	if _, err := os.Stat(dir); err == nil {
		var errs []error
		bundles, errs = runes.Load(os.DirFS(dir))
		for _, err := range errs {
			n.log.Warn("bundle on the medium not used", "error", err)
		}
		n.mediumRunes = errs
	}
	f, err := durable.Create(control.RunesFile, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := runes.WriteTar(f, bundles); err != nil {
		return err
	}
	return f.Commit()
}
