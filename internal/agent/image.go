package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"viver.lan/internal/control"
	"viver.lan/internal/description"
	"viver.lan/internal/manifest"
)

// image serves the payload through the block daemon, so that a boot host needs
// no medium once the swarm holds the image.
type image struct {
	manifest *manifest.Manifest
	files    description.Files // as uinit got and checked them
	daemon   *control.Client
}

func openImage(daemon *control.Client) (*image, error) {
	files, err := description.Read(description.In(control.RunDir))
	if err != nil {
		return nil, fmt.Errorf("open the image's description: %w", err)
	}
	m, err := manifest.Read(bytes.NewReader(files.Manifest))
	return &image{manifest: m, files: files, daemon: daemon}, err
}

// Manifest implements boothost.Image.
func (i *image) Manifest() *manifest.Manifest { return i.manifest }

// Signed implements boothost.Image.
func (i *image) Signed() (text, signature []byte) { return i.files.Manifest, i.files.Signature }

// Metainfo implements boothost.Image.
func (i *image) Metainfo() []byte { return i.files.Metainfo }

// Open implements boothost.Image.
func (i *image) Open(ctx context.Context, name string) (io.ReadSeekCloser, error) {
	f, _, ok := i.manifest.Lookup(name)
	if !ok {
		return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
	}
	return i.daemon.Open(ctx, name, f.Size), nil
}
