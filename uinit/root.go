package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"viver.lan/internal/control"
	"viver.lan/internal/disks"
	"viver.lan/internal/layers"
	"viver.lan/internal/manifest"
)

const (
	newRoot   = "/newroot"
	bindMount = unix.MS_BIND
)

// rootSize is the size of the root disk: the image's root file system, padded
// to whole 4 KiB blocks as mksquashfs leaves it.
func rootSize(m *manifest.Manifest) int64 { return m.RootFile().Size }

// assembleRoot mounts the image and, above it, memory or saved data.
func (n *node) assembleRoot(context.Context) (string, error) {
	cfg := layers.Config{Device: n.rootDevice, Dir: control.RunDir, Target: newRoot, Size: n.overlaySize()}
	note := ""
	if len(n.found) > 0 {
		saved, err := disks.MountSavedData(n.host, n.found, n.image.RootFile().SHA256, control.SavedDir)
		if err != nil {
			note = "; " + err.Error()
		} else {
			cfg.Upper, cfg.Work = saved.Upper, saved.Work
			note = "; on " + saved.Device
			if saved.Note != "" {
				note += "; " + saved.Note
			}
		}
	}
	root, err := layers.Assemble(n.host, cfg)
	if err != nil {
		return "", err
	}
	n.root = newRoot
	if init := n.cmdline.Value("init"); n.machine.Threads > 1 { // a single one has enough to do
		n.background.Go(func(ctx context.Context) error {
			if err := readInit(ctx, newRoot, init); err != nil {
				n.log.Info("root", "error", err)
			}
			return nil
		})
	}
	where := "written files are kept"
	if root.InMemory {
		where = fmt.Sprintf("written files go to memory, %s of it at most", cfg.Size)
		if root.Note != "" {
			note += "; " + root.Note
			err = errors.Join(err, n.host.Unmount(control.SavedDir, 0))
		}
	}
	stores, serr := root.BindStores(n.host)
	if len(stores) > 0 {
		note += "; so do containers in " + strings.Join(stores, ", ")
	}
	if serr != nil { // no reason to stop a boot
		note += "; " + serr.Error()
	}
	return where + note, err
}

// overlaySize is the share of what the image leaves of the memory, because
// both grow in the same place.
func (n *node) overlaySize() string {
	left := max(n.machine.Memory-n.boot.Memory, 32<<20)
	return fmt.Sprintf("%dk", left/100*int64(n.settings.OverlayPercent)>>10)
}
