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
	"io"
	"os"
	"os/exec"
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

// oneExtent is the size of the largest file that ISO 9660 holds in one piece. Larger
// ones need its level 3, which xorriso has but not as grub-mkrescue calls it: it is told
// of them in its own language.
const oneExtent = 1<<32 - 1

// spareSpace is what the file system that UEFI boots from has at least beside its
// programs, in bytes; its size is a multiple of that.
const spareSpace = 1 << 20

// Build writes a hybrid ISO image that boots from CD and from USB, under
// BIOS and UEFI, and returns its marker.
func Build(ctx context.Context, c Config) (media.Marker, error) {
	m, err := c.prepare(ctx)
	if err != nil {
		return media.Marker{}, err
	}
	if err := m.writeFile(ctx); err != nil {
		return media.Marker{}, durable.ExplainSpace(err, filepath.Dir(c.Output))
	}
	return m.marker, nil
}

// medium is what goes onto one, checked.
type medium struct {
	Config
	volume *SettingsVolume
	marker media.Marker
	images []image
	menu   menu
}

// prepare checks all that can be checked before anything is written.
func (c Config) prepare(ctx context.Context) (*medium, error) {
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
			return nil, fmt.Errorf("%s is not installed: install %s", p.program, p.from)
		}
	}
	volume, err := CheckVolume(c.Settings, c.Runes, c.Builtin) // before what takes long
	if err != nil {
		return nil, err
	}
	m := &medium{Config: c, volume: volume}
	if m.images, err = c.verify(ctx); err != nil {
		return nil, err
	}
	m.marker = media.NewMarker(m.images[0].Infohash)
	if m.menu, err = newMenu(m.images, m.marker.ID, volume.Config.Settings(), c.Arguments); err != nil {
		return nil, err
	}
	notes, err := distrusted(m.images)
	if err != nil {
		return nil, err
	}
	for _, note := range notes {
		c.Note(note)
	}
	return m, nil
}

// size is more than the medium will have, in bytes.
func (m *medium) size() int64 {
	need := int64(2*media.SettingsSize + grubSize)
	for _, image := range m.images {
		need += image.Size()
	}
	return need
}

func (m *medium) writeFile(ctx context.Context) (err error) {
	out := filepath.Dir(m.Output)
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	// Asked beforehand, because xorriso does not say when a disk is full.
	if room := durable.Free(out); room > 0 && room < m.size() {
		return fmt.Errorf("the medium needs %d MiB: %w", m.size()>>20, syscall.ENOSPC)
	}
	iso, err := durable.Create(m.Output, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, iso.Close()) }()
	args, remove, err := m.stage(ctx, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	m.Progress("write the medium", 0, 0)
	if err := hosttool.Run(ctx, nil, mkrescue, append([]string{"--output=" + iso.Name()}, args...)...); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return iso.Commit()
}

// writeTo writes the medium to w as it is made, so that there need be room for it nowhere
// else.
func (m *medium) writeTo(ctx context.Context, w io.Writer) (err error) {
	args, remove, err := m.stage(ctx, os.TempDir())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	program, err := hosttool.Find(mkrescue)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"--output=-"}, args...)...)
	cmd.Stdout = w
	return hosttool.Feed(ctx, cmd, func(io.Writer) error { return nil })
}

const mkrescue = "grub-mkrescue"

// stage makes the small parts of the medium in a directory within dir, and returns what
// tells grub-mkrescue where everything is, and what removes them.
func (m *medium) stage(ctx context.Context, dir string) (args []string, remove func() error, err error) {
	dir, err = os.MkdirTemp(dir, ".medium.*"+durable.Suffix)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	settings := filepath.Join(dir, "settings.fat") // imagetree knows what is left of a medium by this
	if err := m.settingsVolume(ctx, dir, settings); err != nil {
		return nil, nil, fmt.Errorf("settings volume: %w", err)
	}
	root := filepath.Join(dir, "iso")
	if err := writeFiles(root, m.marker, m.menu); err != nil {
		return nil, nil, err
	}
	efi := filepath.Join(dir, "efi.fat")
	if err := efiVolume(ctx, efi, filepath.Join(root, efiConfig), m.images[0]); err != nil {
		return nil, nil, fmt.Errorf("EFI system partition: %w", err)
	}
	// The file that grub-mkrescue makes for UEFI holds a GRUB that nobody signed.
	args = []string{root, "/efi.img=" + efi}
	plain, large := graft(m.images)
	args = append(args, plain...)
	args = append(args, "--", "-volid", media.Label, "-append_partition", "4", "0x0c", settings)
	return append(args, large...), func() error { return os.RemoveAll(dir) }, nil
}

// graft says where the images' files go: plain ones as grub-mkrescue has it, large ones as
// xorriso has it.
func graft(images []image) (plain, large []string) {
	for _, image := range images {
		for _, f := range image.contents() {
			if f.size <= oneExtent {
				plain = append(plain, f.to+"="+f.from)
				continue
			}
			if large == nil {
				large = []string{"-compliance", "iso_9660_level=3", "-file_size_limit", "off", "--"}
			}
			large = append(large, "-map", f.from, f.to)
		}
	}
	return plain, large
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
