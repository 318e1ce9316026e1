package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"viver.lan/internal/boothost"
	"viver.lan/internal/control"
	"viver.lan/internal/description"
	"viver.lan/internal/manifest"
)

// image serves the payload through the block daemon, so that a boot host needs
// no medium once the swarm holds the image.
type image struct {
	manifest *manifest.Manifest
	files    description.Files // as uinit or the block daemon checked them
	daemon   *control.Client
	prefix   string // of names, see control.Daemon.Open
}

func openImage(daemon *control.Client, dir string) (*image, error) {
	files, err := description.Read(description.In(dir))
	if err != nil {
		return nil, fmt.Errorf("open the image's description: %w", err)
	}
	m, err := manifest.Read(bytes.NewReader(files.Manifest))
	if err != nil {
		return nil, fmt.Errorf("open the image's description: %w", err)
	}
	return &image{manifest: m, files: files, daemon: daemon, prefix: m.Infohash.String() + "/"}, nil
}

// offer says which images a boot host serves: the one that machines boot, and the other
// one of its network, zero for none. A machine that boots may be told of either, and sent
// here for its files.
type offer struct{ image, other manifest.Infohash }

// offered is what a status has the boot host serve.
func offered(s *control.Status) (o offer) {
	o.image = s.Offered()
	switch p := s.Published; {
	case p == nil || p.Second == nil:
	case o.image == s.Infohash:
		o.other = p.Second.Image
	default:
		o.other = s.Infohash
	}
	return o
}

// openImages opens the images that the block daemon wants served; s is nil while it does
// not answer, which leaves the one that this node runs.
func openImages(daemon *control.Client, s *control.Status) (images []boothost.Image, o offer, err error) {
	own, err := openImage(daemon, control.RunDir)
	if err != nil {
		return nil, o, err
	}
	o.image = own.manifest.Infohash
	if s == nil || offered(s) == o {
		return []boothost.Image{own}, o, nil
	}
	second, err := openImage(daemon, control.SecondDir)
	if err != nil {
		return nil, o, err
	}
	o = offered(s)
	switch (offer{second.manifest.Infohash, own.manifest.Infohash}) {
	case o:
		return []boothost.Image{second, own}, o, nil
	case offer{o.other, o.image}:
		return []boothost.Image{own, second}, o, nil
	}
	return nil, o, fmt.Errorf("the description of the second image is of %s, want %s or %s: it is being replaced", second.manifest.Infohash, o.image, o.other)
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
	return i.daemon.Open(ctx, i.prefix+name, f.Size), nil
}
