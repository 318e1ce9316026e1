// Package bootmedium makes a boot medium of images: an ISO for CD and USB, BIOS
// and UEFI, and writes that to a stick.
//
// Package media says what a medium looks like; here grub-mkrescue, xorriso and
// mtools make it so. The invariants: only whole images, signed by their owner, get
// onto a medium, without any key that signs images; no device in use is written to;
// an interrupted write leaves a stick that boots nothing.
package bootmedium

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"viver.lan/internal/bootfiles"
	"viver.lan/internal/durable"
	"viver.lan/internal/hosttool"
	"viver.lan/internal/manifest"
	"viver.lan/internal/media"
	"viver.lan/internal/runes"
	"viver.lan/internal/sign"
)

// Config says what goes onto a boot medium.
type Config struct {
	// Images are the image directories. Where there are several, a menu offers them.
	Images []string
	// Owner is whose images they must be; zero takes anybody's that fits its own
	// initramfs.
	Owner sign.PublicKey
	// Output is the ISO file to make.
	Output string
	// Settings is the viver.toml to put on the settings volume, "" for the
	// commented default.
	Settings string
	// Runes are bundle directories to put on the settings volume.
	Runes []string
	// Builtin are the runes that every initramfs has; settings may name those, too.
	Builtin []runes.Bundle
	// Arguments are added to the kernel command line.
	Arguments []string
	// Progress is told how far a task has come, in bytes; total is 0 when it is not
	// known. It may be nil.
	Progress func(task string, done, total int64)
	// Note receives sentences for people; it may be nil.
	Note func(string)
}

// grubSize is more than what grub-mkrescue adds, in bytes.
const grubSize = 32 << 20

// spareSpace is what the file system that UEFI boots from has at least beside its
// programs, in bytes; its size is a multiple of that.
const spareSpace = 1 << 20

// Build writes a hybrid ISO image that boots from CD and from USB, under
// BIOS and UEFI, and returns its marker.
func Build(ctx context.Context, c Config) (media.Marker, error) {
	if c.Progress == nil {
		c.Progress = func(string, int64, int64) {}
	}
	if c.Note == nil {
		c.Note = func(string) {}
	}
	for _, p := range []struct{ program, from string }{
		{"grub-mkrescue", "grub-common, grub-pc-bin and grub-efi-amd64-bin"},
		{"xorriso", "xorriso"}, {"mkfs.vfat", "dosfstools"}, {"mcopy", "mtools"}, {"mmd", "mtools"},
	} {
		if _, err := hosttool.Find(p.program); err != nil {
			return media.Marker{}, fmt.Errorf("%s is not installed: install %s", p.program, p.from)
		}
	}
	settings, _, err := CheckVolume(c.Settings, c.Runes, c.Builtin) // before what takes long
	if err != nil {
		return media.Marker{}, err
	}
	images, err := c.verify(ctx)
	if err != nil {
		return media.Marker{}, err
	}
	marker := media.NewMarker(images[0].Infohash)
	menu, err := newMenu(images, marker.ID, settings, c.Arguments)
	if err != nil {
		return media.Marker{}, err
	}
	notes, err := distrusted(images)
	if err != nil {
		return media.Marker{}, err
	}
	for _, note := range notes {
		c.Note(note)
	}
	if err := c.write(ctx, marker, images, menu); err != nil {
		return media.Marker{}, durable.ExplainSpace(err, filepath.Dir(c.Output))
	}
	return marker, nil
}

func (c Config) write(ctx context.Context, marker media.Marker, images []image, menu menu) (err error) {
	if err := os.MkdirAll(filepath.Dir(c.Output), 0o755); err != nil {
		return err
	}
	// Asked beforehand, because xorriso does not say when a disk is full.
	need := int64(2*media.SettingsSize + grubSize)
	for _, image := range images {
		need += image.Size()
	}
	if room := durable.Free(filepath.Dir(c.Output)); room > 0 && room < need {
		return fmt.Errorf("the medium needs %d MiB: %w", need>>20, syscall.ENOSPC)
	}
	iso, err := durable.Create(c.Output, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, iso.Close()) }()
	dir, err := os.MkdirTemp(filepath.Dir(c.Output), ".medium.*"+durable.Suffix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	settings := filepath.Join(dir, "settings.fat") // imagetree knows what is left of a medium by this
	if err := c.settingsVolume(ctx, dir, settings); err != nil {
		return fmt.Errorf("settings volume: %w", err)
	}
	root := filepath.Join(dir, "iso")
	if err := writeFiles(root, marker, menu); err != nil {
		return err
	}
	efi := filepath.Join(dir, "efi.fat")
	if err := efiVolume(ctx, efi, filepath.Join(root, efiConfig), images[0]); err != nil {
		return fmt.Errorf("EFI system partition: %w", err)
	}
	c.Progress("write the medium", 0, 0)
	// The file that grub-mkrescue makes for UEFI holds a GRUB that nobody signed.
	args := []string{"--output=" + iso.Name(), root, "/efi.img=" + efi}
	for _, image := range images {
		for _, file := range image.contents() {
			args = append(args, file[1]+"="+file[0])
		}
	}
	args = append(args, "--", "-volid", media.Label, "-append_partition", "4", "0x0c", settings)
	if err := hosttool.Run(ctx, nil, "grub-mkrescue", args...); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return iso.Commit()
}

// Where GRUB's configuration lies: that of the ISO 9660 file system, which BIOS
// machines read, and the one that leads a signed GRUB there. That is on both file
// systems, because such a GRUB looks on the one it was loaded from: the FAT of a
// stick, but the ISO 9660 of a CD. It must not look beside the former, where the
// modules of another GRUB lie.
const (
	biosConfig = "boot/grub/grub.cfg"
	efiConfig  = "grub/grub.cfg"
)

// writeFiles writes the small files of the ISO 9660 file system; the images
// are taken from where they are.
func writeFiles(root string, marker media.Marker, m menu) error {
	var grub, efi, text bytes.Buffer
	mark := "boot/grub/viver-" + marker.ID
	err := errors.Join(
		execute(&grub, grubTemplate, m),
		execute(&efi, efiTemplate, map[string]string{"Mark": "/" + mark, "Config": "/" + biosConfig}),
		marker.Write(&text))
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		biosConfig:       grub.Bytes(),
		efiConfig:        efi.Bytes(),
		mark:             nil,
		media.MarkerPath: text.Bytes(),
	} {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// efiVolume makes the FAT file system that UEFI boots from: an image's pair of
// boot programs under the names that firmware and shim look for, so that a
// medium boots with Secure Boot wherever the network does, and GRUB's
// configuration.
func efiVolume(ctx context.Context, fat, config string, from image) error {
	const programs = "::EFI/BOOT"
	var size int64
	copies := [][2]string{{config, "::" + efiConfig}}
	for _, p := range [][2]string{{bootfiles.Shim, "BOOTX64.EFI"}, {bootfiles.GRUB, bootfiles.GRUB}, {bootfiles.MokManager, bootfiles.MokManager}} {
		name := manifest.BootDir + "/" + p[0]
		f, _, ok := from.Lookup(name)
		if !ok {
			continue // an image may have none for keys
		}
		size += f.Size
		copies = append(copies, [2]string{filepath.Join(from.dir, name), programs + "/" + p[1]})
	}
	if err := hosttool.Run(ctx, nil, "mkfs.vfat", "--invariant", "-C", fat, fmt.Sprint((size/spareSpace+2)*spareSpace/1024)); err != nil {
		return err
	}
	if err := hosttool.Run(ctx, mtools(), "mmd", "-i", fat, "::EFI", programs, "::"+path.Dir(efiConfig)); err != nil {
		return err
	}
	for _, file := range copies {
		if err := hosttool.Run(ctx, mtools(), "mcopy", "-Q", "-i", fat, file[0], file[1]); err != nil {
			return err
		}
	}
	return nil
}

// mtools is the environment in which mtools read no configuration and take what
// they are given for a disk.
func mtools() []string { return []string{"MTOOLS_SKIP_CHECK=1", "MTOOLSRC=/dev/null"} }
