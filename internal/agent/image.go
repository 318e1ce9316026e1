package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"viver.lan/internal/control"
	"viver.lan/internal/manifest"
)

// image serves the payload through the block daemon, so that a boot host needs
// no medium once the swarm holds the image.
type image struct {
	manifest        *manifest.Manifest
	text, signature []byte // of the manifest, as uinit got and checked them
	metainfo        []byte
	daemon          *control.Client
}

func openImage(daemon *control.Client) (*image, error) {
	text, err := os.ReadFile(control.ManifestFile)
	if err != nil {
		return nil, fmt.Errorf("open the image's manifest: %w", err)
	}
	m, err := manifest.Read(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	signature, err := os.ReadFile(control.SignatureFile)
	if err != nil {
		return nil, fmt.Errorf("open the image's signature: %w", err)
	}
	metainfo, err := os.ReadFile(control.MetainfoFile)
	if err != nil {
		return nil, fmt.Errorf("open the image's metainfo: %w", err)
	}
	return &image{manifest: m, text: text, signature: signature, metainfo: metainfo, daemon: daemon}, nil
}

// Manifest implements boothost.Image.
func (i *image) Manifest() *manifest.Manifest { return i.manifest }

// Signed implements boothost.Image.
func (i *image) Signed() (text, signature []byte) { return i.text, i.signature }

// Metainfo implements boothost.Image.
func (i *image) Metainfo() []byte { return i.metainfo }

// Open implements boothost.Image.
func (i *image) Open(ctx context.Context, name string) (io.ReadSeekCloser, error) {
	f, _, ok := i.manifest.Lookup(name)
	if !ok {
		return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
	}
	return i.daemon.Open(ctx, name, f.Size), nil
}
