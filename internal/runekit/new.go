package runekit

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"viver.lan/internal/runes"
)

// The folders of skeletons; NAME in a path or a text becomes the rune's name.
//
//go:embed all:skeleton
var skeletons embed.FS

// Kinds are the skeletons there are, each with what it shows.
func Kinds() []string {
	return []string{"role (one machine serves, the others work for it)", "service (a program on every machine)", "files (laid before the system starts)"}
}

// New makes the folder of a new rune, which is called as the folder, and returns the paths
// of its files. What exists is not touched.
func New(dir, kind string) (made []string, err error) {
	name := filepath.Base(filepath.Clean(dir))
	if err := runes.CheckName(name); err != nil {
		return nil, err
	}
	skeleton, err := fs.Sub(skeletons, "skeleton/"+kind)
	if err == nil {
		_, err = fs.Stat(skeleton, ".")
	}
	if err != nil {
		return nil, fmt.Errorf("there is no kind %q; there are %s", kind, strings.Join(Kinds(), ", "))
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a new rune: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make a new rune: %w", err), os.RemoveAll(dir))
		}
	}()
	err = fs.WalkDir(skeleton, ".", func(from string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(skeleton, from)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, strings.ReplaceAll(from, "NAME", name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		made = append(made, to)
		return os.WriteFile(to, []byte(strings.ReplaceAll(string(data), "NAME", name)), 0o644)
	})
	return made, err
}
