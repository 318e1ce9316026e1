package bootmedium

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"viver.lan/internal/config"
	"viver.lan/internal/hosttool"
	"viver.lan/internal/media"
	"viver.lan/internal/runes"
)

//go:embed settings.toml
var defaultSettings []byte

// settingsVolume makes the FAT file system, without root: mtools write into
// the file.
func (m *medium) settingsVolume(ctx context.Context, dir, fat string) error {
	settings := m.volume.Text
	if settings == nil {
		settings = defaultSettings
	}
	root := filepath.Join(dir, "settings")
	if err := os.MkdirAll(filepath.Join(root, media.RunesPath), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, media.SettingsPath), settings, 0o644); err != nil {
		return err
	}
	for _, bundle := range m.Runes {
		if _, err := AddRune(root, bundle); err != nil {
			return err
		}
	}
	if err := hosttool.Run(ctx, nil, "mkfs.vfat", "--invariant", "-F", "16", "-n", media.SettingsLabel, "-C", fat, fmt.Sprint(media.SettingsSize/1024)); err != nil {
		return err
	}
	return hosttool.Run(ctx, mtools(), "mcopy", "-s", "-Q", "-i", fat, filepath.Join(root, "viver"), "::")
}

// SettingsVolume is what a settings volume has, or what is served in its place.
type SettingsVolume struct {
	// Text is that of the settings, nil for the defaults, and Config what it says.
	Text   []byte
	Config *config.Config
	// Runes are the bundles, without the built-in ones.
	Runes []runes.Bundle
}

// CheckVolume reads settings and bundle directories, and refuses what a node could not use
// of them. The name of the settings may be "", for the defaults.
func CheckVolume(settings string, dirs []string, builtin []runes.Bundle) (*SettingsVolume, error) {
	v := &SettingsVolume{Config: config.New()}
	for _, dir := range dirs {
		b, err := checkRune(dir)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(v.Runes, func(o runes.Bundle) bool { return o.Name == b.Name }) {
			return nil, fmt.Errorf("two of the bundles are called %s", b.Name)
		}
		v.Runes = append(v.Runes, b)
	}
	if settings != "" {
		var err error
		if v.Text, err = os.ReadFile(settings); err != nil {
			return nil, err
		}
		v.Config.AddTOML(config.Medium, v.Text)
	}
	return v, checkSettings(settings, v.Config, runes.Merge(builtin, v.Runes))
}

// checkSettings refuses, while the operator is still there, what a node would ignore.
func checkSettings(name string, c *config.Config, known []runes.Bundle) error {
	var problems []string
	for _, p := range c.Problems() {
		problems = append(problems, p.String())
	}
	settings := c.Settings()
	_, off := runes.Without(known, settings.RunesOff)
	_, values := runes.Configure(known, settings.Runes)
	if err := errors.Join(off, values); err != nil {
		problems = append(problems, strings.Split(err.Error(), "\n")...)
	}
	if len(problems) > 0 {
		return fmt.Errorf("%s:\n  - %s", name, strings.Join(problems, "\n  - "))
	}
	return nil
}
