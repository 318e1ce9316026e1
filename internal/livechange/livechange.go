// Package livechange makes a new live layer of the one in use, with a rune, a file or a
// setting more, or less; and says what a layer makes of the runes of a machine.
//
// It signs and sends nothing. The invariant: a layer that it makes can be read by every
// node, and holds what the one before held but for what was asked.
package livechange

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"viver.lan/internal/livelayer"
	"viver.lan/internal/runes"
)

// Empty is the layer of a network that has none.
func Empty() livelayer.Layer { return livelayer.Layer{Runes: archive(nil)} }

// Runes returns the bundles of a layer.
func Runes(l livelayer.Layer) ([]runes.Bundle, error) {
	bundles, errs := runes.ReadTar(bytes.NewReader(l.Runes))
	if len(errs) > 0 {
		return nil, fmt.Errorf("the live layer in use: %w", errors.Join(errs...))
	}
	return bundles, nil
}

// Add returns the layer with a bundle, in the place of one of that name.
func Add(l livelayer.Layer, b runes.Bundle) (livelayer.Layer, error) {
	bundles, err := Runes(l)
	if err != nil {
		return l, err
	}
	l.Runes = archive(runes.Merge(bundles, []runes.Bundle{b}))
	l.Off = slices.DeleteFunc(slices.Clone(l.Off), func(name string) bool { return name == b.Name })
	return l, nil
}

// Remove returns the layer without a bundle. If the image or the medium has one of that
// name it is not used either.
func Remove(l livelayer.Layer, name string) (livelayer.Layer, error) {
	bundles, err := Runes(l)
	if err != nil {
		return l, err
	}
	if slices.Contains(l.Off, name) {
		return l, fmt.Errorf("rune %s is removed already", name)
	}
	l.Runes = archive(slices.DeleteFunc(bundles, func(b runes.Bundle) bool { return b.Name == name }))
	l.Off = append(slices.Clone(l.Off), name)
	slices.Sort(l.Off)
	return l, nil
}

// filePrefix begins the names of bundles that hold one file.
const filePrefix = "file-"

// fileOrder has such a file laid after those of other runes.
const fileOrder = 90

// FileRune is the name of the bundle that lays the file at a path.
func FileRune(dest string) string {
	digest := sha256.Sum256([]byte(dest))
	return filePrefix + hex.EncodeToString(digest[:6])
}

// PutFile returns the layer with a file.
func PutFile(l livelayer.Layer, dest string, mode fs.FileMode, data []byte) (livelayer.Layer, error) {
	if err := checkDest(dest); err != nil {
		return l, err
	}
	text, err := toml.Marshal(map[string]any{
		"name": FileRune(dest), "description": dest + ", put by the operator", "order": fileOrder,
		"file": []map[string]string{{"path": dest, "mode": fmt.Sprintf("%o", mode.Perm())}},
	})
	if err != nil {
		return l, err
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, data := range map[string][]byte{"rune.toml": text, "files" + dest: data} {
		h := tar.Header{Typeflag: tar.TypeReg, Name: FileRune(dest) + "/" + name, Mode: 0o644, Size: int64(len(data)), Format: tar.FormatPAX}
		if err := errors.Join(w.WriteHeader(&h), write(w, data)); err != nil {
			return l, err
		}
	}
	if err := w.Close(); err != nil {
		return l, err
	}
	bundles, errs := runes.ReadTar(&out)
	if len(errs) > 0 {
		return l, errors.Join(errs...)
	}
	return Add(l, bundles[0])
}

// RemoveFile returns the layer without a file that PutFile put.
func RemoveFile(l livelayer.Layer, dest string) (livelayer.Layer, error) {
	bundles, err := Runes(l)
	if err != nil {
		return l, err
	}
	if !slices.ContainsFunc(bundles, func(b runes.Bundle) bool { return b.Name == FileRune(dest) }) {
		return l, fmt.Errorf("no file %s was put: viver rune history tells what was", dest)
	}
	l.Runes = archive(slices.DeleteFunc(bundles, func(b runes.Bundle) bool { return b.Name == FileRune(dest) }))
	return l, nil
}

func write(w *tar.Writer, data []byte) error {
	_, err := w.Write(data)
	return err
}

func checkDest(dest string) error {
	switch {
	case !path.IsAbs(dest) || dest != path.Clean(dest) || dest == "/":
		return fmt.Errorf("%q: want the file's whole path on the nodes, such as /etc/motd", dest)
	case strings.HasSuffix(dest, ".tmpl"):
		return fmt.Errorf("%s: in a rune this is a template: it would be laid without .tmpl, and with facts of the machine; add it as a rune (viver rune new)", dest)
	}
	return nil
}

// Set returns the layer with a setting of a rune, without it for nil.
func Set(l livelayer.Layer, name, key string, value *string) livelayer.Layer {
	all := make(map[string]map[string]string)
	for n, values := range l.Settings {
		all[n] = maps.Clone(values)
	}
	switch {
	case value == nil:
		delete(all[name], key)
		if len(all[name]) == 0 {
			delete(all, name)
		}
	case all[name] == nil:
		all[name] = map[string]string{key: *value}
	default:
		all[name][key] = *value
	}
	l.Settings = all
	return l
}

// archive is what the layer has bundles in.
func archive(bundles []runes.Bundle) []byte {
	var out bytes.Buffer
	if err := runes.WriteTar(&out, bundles); err != nil {
		panic(err) // the bundles are checked, and memory takes what is written
	}
	return out.Bytes()
}

// Over returns the bundles and settings of a machine with what a layer has in place of
// them. added is called with each bundle of the layer, if it is set. The bundles are
// usable also where the errors say that some are not.
func Over(all []runes.Bundle, settings map[string]map[string]string, l livelayer.Layer, added func(runes.Bundle) runes.Bundle) ([]runes.Bundle, map[string]map[string]string, []error) {
	var bundles []runes.Bundle
	var errs []error
	if len(l.Runes) > 0 {
		bundles, errs = runes.ReadTar(bytes.NewReader(l.Runes))
	}
	for i, b := range bundles {
		if added != nil {
			bundles[i] = added(b)
		}
	}
	all = slices.DeleteFunc(runes.Merge(all, bundles), func(b runes.Bundle) bool { return slices.Contains(l.Off, b.Name) })
	merged := make(map[string]map[string]string)
	for _, set := range []map[string]map[string]string{settings, l.Settings} {
		for name, values := range set {
			if merged[name] == nil {
				merged[name] = make(map[string]string)
			}
			maps.Copy(merged[name], values)
		}
	}
	return all, merged, errs
}
