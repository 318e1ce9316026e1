package imagebuild

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"

	"viver.lan/internal/config"
	"viver.lan/internal/durable"
	"viver.lan/internal/manifest"
	"viver.lan/internal/media"
	"viver.lan/internal/sign"
)

// MediumConfig says what goes onto a boot medium.
type MediumConfig struct {
	// Image is the image directory.
	Image string
	// Owner is whose image it must be; zero takes anybody's that fits its own
	// initramfs.
	Owner sign.PublicKey
	// Output is the ISO file to make.
	Output string
	// Settings is the viver.toml to put on the settings volume, "" for the
	// commented default.
	Settings string
	// Runes are bundle directories to put on the settings volume.
	Runes []string
	// Arguments are added to the kernel command line.
	Arguments []string
	// Progress may be nil.
	Progress Progress
}

// settingsSize is the size of the settings volume in bytes: the smallest that
// every firmware and system takes for FAT16 without doubt, with room for runes.
const settingsSize = 32 << 20

// settingsFile is the settings volume while a medium is made.
const settingsFile = "settings.fat"

// grubSize is more than what grub-mkrescue adds, in bytes.
const grubSize = 32 << 20

// spareSize is what the file system that UEFI boots from has at least beside its
// programs; it is as many of these as it takes.
const spareSize = 1 << 20

//go:embed grub.cfg.tmpl
var grubTemplate string

//go:embed efi.cfg.tmpl
var efiTemplate string

//go:embed settings.toml
var defaultSettings []byte

// BuildMedium writes a hybrid ISO image that boots from CD and from USB, under
// BIOS and UEFI, and returns its marker.
func BuildMedium(ctx context.Context, c MediumConfig) (media.Marker, error) {
	if c.Progress == nil {
		c.Progress = func(string, int64, int64) {}
	}
	for _, p := range []struct{ program, from string }{
		{"grub-mkrescue", "grub-common, grub-pc-bin and grub-efi-amd64-bin"},
		{"xorriso", "xorriso"}, {"mkfs.vfat", "dosfstools"}, {"mcopy", "mtools"}, {"mmd", "mtools"},
	} {
		if _, err := lookProgram(p.program); err != nil {
			return media.Marker{}, fmt.Errorf("%s is not installed: install %s", p.program, p.from)
		}
	}
	v, err := Verify(ctx, c.Image, c.Owner, c.Progress)
	if err != nil {
		return media.Marker{}, err
	}
	if err := v.Err(); err != nil {
		return media.Marker{}, err
	}
	marker := media.NewMarker(v.Manifest.Infohash)
	if err := c.write(ctx, marker, v.Manifest); err != nil {
		return media.Marker{}, explainSpace(err, filepath.Dir(c.Output))
	}
	return marker, nil
}

func (c MediumConfig) write(ctx context.Context, marker media.Marker, m *manifest.Manifest) (err error) {
	if err := os.MkdirAll(filepath.Dir(c.Output), 0o755); err != nil {
		return err
	}
	// Asked beforehand, because xorriso does not say when a disk is full.
	need := m.Size() + 2*settingsSize + grubSize
	if room := free(filepath.Dir(c.Output)); room > 0 && room < need {
		return fmt.Errorf("the medium needs %d MiB: %w", need>>20, syscall.ENOSPC)
	}
	iso, err := durable.Create(c.Output, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, iso.Close()) }()
	dir, err := os.MkdirTemp(filepath.Dir(c.Output), ".medium.*"+partSuffix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	settings := filepath.Join(dir, settingsFile)
	if err := c.settingsVolume(ctx, dir, settings); err != nil {
		return fmt.Errorf("settings volume: %w", err)
	}
	root := filepath.Join(dir, "iso")
	if err := c.layOut(root, marker, m); err != nil {
		return err
	}
	efi := filepath.Join(dir, "efi.fat")
	if err := c.efiVolume(ctx, efi, filepath.Join(root, efiConfig), m); err != nil {
		return fmt.Errorf("EFI system partition: %w", err)
	}
	image, err := filepath.Abs(c.Image)
	if err != nil {
		return err
	}
	c.Progress("write the medium", 0, 0)
	// The file that grub-mkrescue makes for UEFI holds a GRUB that nobody signed.
	args := []string{"--output=" + iso.Name(), root, "/efi.img=" + efi}
	// File by file: what else lies in the directory is not for everybody's eyes.
	names := []string{manifest.File, manifest.Signature, manifest.Metainfo}
	for _, f := range m.Files {
		names = append(names, f.Name)
	}
	for _, name := range names {
		args = append(args, "/"+media.ImagePath+"/"+name+"="+filepath.Join(image, name))
	}
	args = append(args, "--", "-volid", media.Label, "-append_partition", "4", "0x0c", settings)
	if err := command(ctx, nil, "grub-mkrescue", args...); err != nil {
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

// layOut writes the small files of the ISO 9660 file system; the image itself
// is taken from where it is.
func (c MediumConfig) layOut(root string, marker media.Marker, m *manifest.Manifest) error {
	var grub, efi, text bytes.Buffer
	mark := "boot/grub/viver-" + marker.ID
	err := errors.Join(
		fill(&grub, grubTemplate, map[string]string{
			"Name":      plainTitle(m.Name),
			"Kernel":    "/" + media.ImagePath + "/" + manifest.Kernel,
			"Initramfs": initramfs(m),
			"Medium":    media.Argument + "=" + marker.ID,
			"Arguments": strings.Join(c.Arguments, " "),
		}),
		fill(&efi, efiTemplate, map[string]string{"Mark": "/" + mark, "Config": "/" + biosConfig}),
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

// initramfs names what the medium's GRUB loads beside the kernel: all drivers,
// because the machine has to find the medium again.
func initramfs(m *manifest.Manifest) string {
	name := "/" + media.ImagePath + "/" + manifest.Initramfs
	if _, _, ok := m.Lookup(manifest.Drivers); ok { // older images have one file with all of them
		name += " /" + media.ImagePath + "/" + manifest.Drivers
	}
	return name
}

func fill(w io.Writer, text string, words map[string]string) error {
	t, err := template.New("").Parse(text)
	if err != nil {
		return err
	}
	return t.Execute(w, words)
}

// efiVolume makes the FAT file system that UEFI boots from: the image's pair of
// boot programs under the names that firmware and shim look for, so that a
// medium boots with Secure Boot wherever the network does, and GRUB's
// configuration.
func (c MediumConfig) efiVolume(ctx context.Context, fat, config string, m *manifest.Manifest) error {
	const programs = "::EFI/BOOT"
	var size int64
	copies := [][2]string{{config, "::" + efiConfig}}
	for _, p := range [][2]string{{shimProgram, "BOOTX64.EFI"}, {grubProgram, grubProgram}, {keysProgram, keysProgram}} {
		name := manifest.BootDir + "/" + p[0]
		f, _, ok := m.Lookup(name)
		if !ok {
			continue // an image may have none for keys
		}
		size += f.Size
		copies = append(copies, [2]string{filepath.Join(c.Image, name), programs + "/" + p[1]})
	}
	mtools := []string{"MTOOLS_SKIP_CHECK=1", "MTOOLSRC=/dev/null"}
	if err := command(ctx, nil, "mkfs.vfat", "--invariant", "-C", fat, fmt.Sprint((size/spareSize+2)*spareSize/1024)); err != nil {
		return err
	}
	if err := command(ctx, mtools, "mmd", "-i", fat, "::EFI", programs, "::"+path.Dir(efiConfig)); err != nil {
		return err
	}
	for _, file := range copies {
		if err := command(ctx, mtools, "mcopy", "-Q", "-i", fat, file[0], file[1]); err != nil {
			return err
		}
	}
	return nil
}

// plainTitle keeps an image's name from ending the quotes it stands in.
func plainTitle(s string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("'\"\\$\n", r) {
			return '_'
		}
		return r
	}, s)
}

// settingsVolume makes the FAT file system, without root: mtools write into
// the file.
func (c MediumConfig) settingsVolume(ctx context.Context, dir, fat string) error {
	settings := defaultSettings
	if c.Settings != "" {
		var err error
		if settings, err = os.ReadFile(c.Settings); err != nil {
			return err
		}
		if err := checkSettings(c.Settings, settings); err != nil {
			return err
		}
	}
	tree := filepath.Join(dir, "settings", "viver")
	if err := os.MkdirAll(filepath.Join(tree, filepath.Base(media.RunesPath)), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tree, filepath.Base(media.SettingsPath)), settings, 0o644); err != nil {
		return err
	}
	for _, bundle := range c.Runes {
		to := filepath.Join(tree, filepath.Base(media.RunesPath), filepath.Base(filepath.Clean(bundle)))
		if err := os.CopyFS(to, os.DirFS(bundle)); err != nil {
			return fmt.Errorf("rune %s: %w", bundle, err)
		}
		if err := noKeys(to); err != nil {
			return fmt.Errorf("rune %s: %w", bundle, err)
		}
	}
	if err := command(ctx, nil, "mkfs.vfat", "--invariant", "-F", "16", "-n", media.SettingsLabel, "-C", fat, fmt.Sprint(settingsSize/1024)); err != nil {
		return err
	}
	return command(ctx, []string{"MTOOLS_SKIP_CHECK=1", "MTOOLSRC=/dev/null"}, "mcopy", "-s", "-Q", "-i", fat, tree, "::")
}

// noKeys refuses a directory with a key that signs images: a medium's bundles
// are served to everyone.
func noKeys(dir string) error {
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		fi, err := d.Info()
		if err != nil || fi.Size() > sign.MaxKeySize {
			return err
		}
		data, err := os.ReadFile(p)
		if err == nil && sign.IsPrivateKey(data) {
			err = fmt.Errorf("%s is a key that signs images, which must not be on a medium: take it out", d.Name())
		}
		return err
	})
}

// checkSettings refuses on the operator's desk what a node would pass over.
func checkSettings(name string, data []byte) error {
	c := config.New()
	c.AddTOML(config.Medium, data)
	var problems []string
	for _, p := range c.Problems() {
		problems = append(problems, p.String())
	}
	if len(problems) > 0 {
		return fmt.Errorf("%s:\n  - %s", name, strings.Join(problems, "\n  - "))
	}
	return nil
}

// lookProgram finds a program, in the administrator's directories too: an
// ordinary user's PATH often lacks them.
func lookProgram(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}

// command runs a program; what it said is part of the error.
func command(ctx context.Context, env []string, name string, args ...string) error {
	program, err := lookProgram(name)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	// Ctrl-C reaches us, and we end the whole group: grub-mkrescue has children.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	said, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, errors.Join(err, spaceLeft(string(said))), lastLines(string(said), 4))
	}
	return nil
}
