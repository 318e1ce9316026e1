// Package imagedir is about an image as a directory: its files, and the manifest,
// metainfo and signature that describe them. It describes and signs what was
// written, and compares what was copied with its description.
//
// It does not make the files (package imagebuild does). The invariant: under an
// image's final name there is a whole one, or what was there before; the signature
// is its last file.
package imagedir

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"

	"viver.lan/internal/durable"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/sign"
)

// Describe writes the metainfo, the manifest and, as the last file of all, the
// owner's signature of it, for the files of the given names in dir, in this order.
// It adds them and the infohash to m.
func Describe(ctx context.Context, dir string, m *manifest.Manifest, names []string, key sign.PrivateKey, progress func(done, total int64)) error {
	var sources []metainfo.Source
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, err := fileInfo(dir, name)
		if err != nil {
			return err
		}
		m.Files = append(m.Files, f)
		sources = append(sources, metainfo.Source{Name: name, Path: filepath.Join(dir, name)})
	}
	torrent, info, err := metainfo.Create(m.Name, sources, m.PieceLength, func(done int64) { progress(done, m.Size()) })
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	m.Infohash = info.Infohash
	if err := durable.WriteFile(filepath.Join(dir, manifest.Metainfo), torrent, 0o644); err != nil {
		return err
	}
	var text bytes.Buffer
	if err := m.Write(&text); err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(dir, manifest.File), text.Bytes(), 0o644); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, manifest.Signature), key.Sign(sign.Manifest, text.Bytes()), 0o644)
}

func fileInfo(dir, name string) (manifest.FileInfo, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return manifest.FileInfo{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return manifest.FileInfo{}, err
	}
	return manifest.FileInfo{Name: name, Size: n, SHA256: manifest.Digest(h.Sum(nil))}, nil
}
