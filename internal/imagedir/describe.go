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
	"cmp"
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/bootfiles"
	"viver.lan/internal/description"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/sign"
)

// Describe writes the metainfo, the manifest and, as the last file of all, the
// owner's signature of it, for the image in dir. It adds files and infohash to m, and
// a piece length if that has none.
func Describe(ctx context.Context, dir string, m *manifest.Manifest, key sign.PrivateKey, progress func(done, total int64)) error {
	names := payload(dir)
	var sources []metainfo.Source
	var total int64
	for _, name := range names {
		file := filepath.Join(dir, name)
		fi, err := os.Stat(file)
		if err != nil {
			return err
		}
		total += fi.Size()
		sources = append(sources, metainfo.Source{Name: name, Path: file})
	}
	if m.PieceLength == 0 {
		m.PieceLength = metainfo.PieceLengthFor(total)
	}
	// Two sums of the same bytes, on two processors: the second to come to a byte
	// finds it in memory.
	g, both := errgroup.WithContext(ctx)
	g.Go(func() error {
		for _, name := range names {
			if err := both.Err(); err != nil {
				return err
			}
			f, err := fileInfo(dir, name)
			if err != nil {
				return err
			}
			m.Files = append(m.Files, f)
		}
		return nil
	})
	var torrent []byte
	var info *metainfo.Info
	g.Go(func() (err error) {
		torrent, info, err = metainfo.Create(m.Name, sources, m.PieceLength, func(done int64) { progress(done, total) })
		return err
	})
	if err := cmp.Or(g.Wait(), ctx.Err()); err != nil {
		return err
	}
	m.Infohash = info.Infohash
	var text bytes.Buffer
	if err := m.Write(&text); err != nil {
		return err
	}
	return description.Files{Manifest: text.Bytes(), Signature: key.Sign(sign.Manifest, text.Bytes()), Metainfo: torrent}.Write(dir)
}

// payload lists the files of the image in dir in the order of the torrent.
func payload(dir string) []string {
	names := []string{manifest.Root, manifest.Kernel, manifest.Initramfs, manifest.NICs, manifest.Drivers}
	for _, name := range bootfiles.Names() {
		name = manifest.BootDir + "/" + name
		// A pair from the tree may come without the program for keys, and few images
		// have an iPXE for UEFI.
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			names = append(names, name)
		}
	}
	return names
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
