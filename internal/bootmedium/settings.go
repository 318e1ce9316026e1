package bootmedium

import (
	"context"
	_ "embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"viver.lan/internal/config"
	"viver.lan/internal/hosttool"
	"viver.lan/internal/media"
	"viver.lan/internal/sign"
)

//go:embed settings.toml
var defaultSettings []byte

// settingsVolume makes the FAT file system, without root: mtools write into
// the file.
func (c Config) settingsVolume(ctx context.Context, dir, fat string) error {
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
	root := filepath.Join(dir, "settings")
	runes := filepath.Join(root, media.RunesPath)
	if err := os.MkdirAll(runes, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, media.SettingsPath), settings, 0o644); err != nil {
		return err
	}
	for _, bundle := range c.Runes {
		to := filepath.Join(runes, filepath.Base(filepath.Clean(bundle)))
		if err := os.CopyFS(to, os.DirFS(bundle)); err != nil {
			return fmt.Errorf("rune %s: %w", bundle, err)
		}
		if err := refuseKeys(to); err != nil {
			return fmt.Errorf("rune %s: %w", bundle, err)
		}
	}
	if err := hosttool.Run(ctx, nil, "mkfs.vfat", "--invariant", "-F", "16", "-n", media.SettingsLabel, "-C", fat, fmt.Sprint(media.SettingsSize/1024)); err != nil {
		return err
	}
	return hosttool.Run(ctx, mtools(), "mcopy", "-s", "-Q", "-i", fat, filepath.Join(root, "viver"), "::")
}

// refuseKeys refuses a directory with a key that signs images: a medium's bundles
// are served to everyone.
func refuseKeys(dir string) error {
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

// checkSettings refuses, while the operator is still there, what a node would ignore.
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
