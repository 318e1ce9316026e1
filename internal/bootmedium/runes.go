package bootmedium

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"viver.lan/internal/durable"
	"viver.lan/internal/media"
	"viver.lan/internal/runes"
	"viver.lan/internal/sign"
)

// AddRune copies a bundle onto a settings volume, mounted or being made, in the place of
// one of the same name. What a node would not use is refused, while the operator is
// still there.
func AddRune(volume, dir string) (runes.Bundle, error) {
	b, err := checkRune(dir)
	if err != nil {
		return b, err
	}
	to, err := runeOn(volume, b.Name)
	if err != nil {
		return b, err
	}
	part := to + durable.Suffix // no rune's name: should it be left behind, a node says so
	err = os.RemoveAll(part)
	if err == nil {
		err = os.CopyFS(part, os.DirFS(dir))
	}
	if err == nil {
		err = os.RemoveAll(to)
	}
	if err == nil {
		err = os.Rename(part, to)
	}
	if err != nil {
		return b, errors.Join(fmt.Errorf("put rune %s onto the settings volume: %w", b.Name, err), os.RemoveAll(part))
	}
	return b, nil
}

// RemoveRune takes a bundle off a settings volume.
func RemoveRune(volume, name string) error {
	if err := runes.CheckName(name); err != nil {
		return err
	}
	dir, err := runeOn(volume, name)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("there is no rune %s in %s (to do without a built-in one, write off = [%q] below [runes] in %s)", name, filepath.Dir(dir), name, media.SettingsPath)
	}
	return os.RemoveAll(dir)
}

// runeOn returns where a bundle lies on a settings volume.
func runeOn(volume, name string) (string, error) {
	if _, err := os.Stat(filepath.Join(volume, media.SettingsPath)); err != nil {
		return "", fmt.Errorf("%s is no settings volume, which has %s: name the directory where the volume %s is mounted", volume, media.SettingsPath, media.SettingsLabel)
	}
	dir := filepath.Join(volume, media.RunesPath)
	return filepath.Join(dir, name), os.MkdirAll(dir, 0o755)
}

// checkRune reads a bundle and refuses what does not work from a medium.
func checkRune(dir string) (runes.Bundle, error) {
	b, err := runes.LoadDir(dir)
	if err == nil {
		err = b.OnFAT()
	}
	if err != nil {
		return b, err
	}
	if err := refuseKeys(dir); err != nil {
		return b, fmt.Errorf("rune %s: %w", b.Name, err)
	}
	return b, nil
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
