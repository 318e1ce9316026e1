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
func (c Config) settingsVolume(ctx context.Context, dir, fat string) error {
	settings := defaultSettings
	if c.Settings != "" {
		var err error
		if settings, err = os.ReadFile(c.Settings); err != nil {
			return err
		}
	}
	root := filepath.Join(dir, "settings")
	if err := os.MkdirAll(filepath.Join(root, media.RunesPath), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, media.SettingsPath), settings, 0o644); err != nil {
		return err
	}
	for _, bundle := range c.Runes {
		if _, err := AddRune(root, bundle); err != nil {
			return err
		}
	}
	if err := hosttool.Run(ctx, nil, "mkfs.vfat", "--invariant", "-F", "16", "-n", media.SettingsLabel, "-C", fat, fmt.Sprint(media.SettingsSize/1024)); err != nil {
		return err
	}
	return hosttool.Run(ctx, mtools(), "mcopy", "-s", "-Q", "-i", fat, filepath.Join(root, "viver"), "::")
}

// CheckVolume refuses what a node could not use of settings and bundle directories that
// are to be on a settings volume, or to be served in its place. It returns both, without the
// built-in bundles. The name of the settings may be "", for the defaults.
func CheckVolume(settings string, dirs []string, builtin []runes.Bundle) (values config.Settings, given []runes.Bundle, err error) {
	for _, dir := range dirs {
		b, err := checkRune(dir)
		if err != nil {
			return values, nil, err
		}
		if slices.ContainsFunc(given, func(o runes.Bundle) bool { return o.Name == b.Name }) {
			return values, nil, fmt.Errorf("two of the bundles are called %s", b.Name)
		}
		given = append(given, b)
	}
	values, err = checkSettings(settings, runes.Merge(builtin, given))
	return values, given, err
}

// checkSettings refuses, while the operator is still there, what a node would ignore.
// No name stands for the defaults.
func checkSettings(name string, known []runes.Bundle) (config.Settings, error) {
	c := config.New()
	if name != "" {
		data, err := os.ReadFile(name)
		if err != nil {
			return config.Settings{}, err
		}
		c.AddTOML(config.Medium, data)
	}
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
		return settings, fmt.Errorf("%s:\n  - %s", name, strings.Join(problems, "\n  - "))
	}
	return settings, nil
}
