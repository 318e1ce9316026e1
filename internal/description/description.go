// Package description is what stands beside an image's payload and describes it: the
// manifest, the owner's signature of that, and the metainfo.
//
// Who boots, serves or verifies an image asks here whose it is; the payload itself is
// package imagedir's. The invariant: a signed manifest names the infohash, the infohash
// binds the metainfo, and that the bytes of every piece.
package description

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"viver.lan/internal/durable"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/sign"
)

// Files are a description as it was read or received.
type Files struct{ Manifest, Signature, Metainfo []byte }

// ErrNotSigned marks an image with no signature at all.
var ErrNotSigned = errors.New("it has no signature (" + manifest.Signature + ")")

// Read reads the files by get, which takes their names in an image directory and is
// called for all of them at once: from another machine they come in the time of one. An
// error that wraps fs.ErrNotExist says that there is none of that name.
func Read(get func(name string) ([]byte, error)) (f Files, err error) {
	var signature, metainfo error
	var others sync.WaitGroup
	others.Go(func() { f.Signature, signature = get(manifest.Signature) })
	others.Go(func() { f.Metainfo, metainfo = get(manifest.Metainfo) })
	f.Manifest, err = get(manifest.File)
	others.Wait()
	if errors.Is(signature, fs.ErrNotExist) {
		signature = ErrNotSigned
	}
	return f, cmp.Or(err, signature, metainfo)
}

// In returns what reads the files of an image directory.
func In(dir string) func(name string) ([]byte, error) {
	return func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) }
}

// Write stores the files in dir under the names that they have in an image directory,
// each whole or not at all, the signature last.
func (f Files) Write(dir string) error {
	for _, file := range []struct {
		name string
		data []byte
	}{{manifest.Metainfo, f.Metainfo}, {manifest.File, f.Manifest}, {manifest.Signature, f.Signature}} {
		if err := durable.WriteFile(filepath.Join(dir, file.name), file.data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// SignedBy checks that the owner signed the manifest. It decodes nothing else.
func (f Files) SignedBy(owner sign.PublicKey) error {
	return owner.Verify(sign.Manifest, f.Manifest, f.Signature)
}

// Decode returns manifest and metainfo, if they describe the same payload.
func (f Files) Decode() (*manifest.Manifest, *metainfo.Info, error) {
	m, err := manifest.Read(bytes.NewReader(f.Manifest))
	if err != nil {
		return nil, nil, err
	}
	info, err := metainfo.Parse(f.Metainfo)
	if err != nil {
		return nil, nil, err
	}
	same := func(a manifest.FileInfo, b metainfo.File) bool { return a.Name == b.Name && a.Size == b.Size }
	if info.Infohash != m.Infohash || !slices.EqualFunc(m.Files, info.Files, same) {
		return nil, nil, fmt.Errorf("the metainfo does not belong to its manifest: it describes image %s, that one image %s: the image directory is damaged, or its files are from several", info.Infohash, m.Infohash)
	}
	return m, info, nil
}
