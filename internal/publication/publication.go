// Package publication is the encoding of what the owner tells a running network about its
// image: which one machines boot from now on, and which one they booted before.
//
// Its pointer travels in an override, as that of a live layer does, so who may publish,
// for which network, and which of two publications is newer is decided there; package
// livestore brings the bytes to each node. Both images are described in it, so that a
// node of either knows the other one. The invariant: what Check accepted is two images
// that the owner signed.
package publication

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"

	"viver.lan/internal/description"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/sign"
)

// Key is that of the override whose value is the livelayer.Pointer to the publication in
// use.
const Key = "image"

// Publication says which image a network boots, and which one it booted before.
type Publication struct{ Image, Former description.Files }

// Image is one that is described in a publication.
type Image struct {
	description.Files
	Manifest *manifest.Manifest
	Info     *metainfo.Info
}

// ReadImage reads the description in an image directory, without asking whose it is.
func ReadImage(dir string) (image Image, err error) {
	if image.Files, err = description.Read(description.In(dir)); err != nil {
		return image, err
	}
	image.Manifest, image.Info, err = image.Decode()
	return image, err
}

// The folders of the archive; each has the files of a description.
const (
	imageDir  = "image/"
	formerDir = "former/"
)

// file is one of the archive.
type file struct {
	name string
	data *[]byte
}

// files are those of the archive, in their order.
func (p *Publication) files() (list []file) {
	for _, of := range []struct {
		dir   string
		files *description.Files
	}{{imageDir, &p.Image}, {formerDir, &p.Former}} {
		list = append(list,
			file{of.dir + manifest.File, &of.files.Manifest},
			file{of.dir + manifest.Signature, &of.files.Signature},
			file{of.dir + manifest.Metainfo, &of.files.Metainfo})
	}
	return list
}

// Encode returns the publication as bytes, which depend on it only.
func (p Publication) Encode() ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range p.files() {
		h := tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(len(*f.data)), Format: tar.FormatUSTAR}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if _, err := w.Write(*f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if out.Len() > livelayer.MaxSize {
		return nil, fmt.Errorf("what describes the two images has %d bytes, and may have %d: build the image with larger pieces", out.Len(), livelayer.MaxSize)
	}
	return out.Bytes(), nil
}

// Decode reads what Encode returned. It looks into none of the files.
func Decode(data []byte) (p Publication, err error) {
	if len(data) > livelayer.MaxSize {
		return p, fmt.Errorf("a publication of %d bytes, want up to %d", len(data), livelayer.MaxSize)
	}
	r := tar.NewReader(bytes.NewReader(data))
	for _, f := range p.files() {
		h, err := r.Next()
		if err == nil && (h.Typeflag != tar.TypeReg || h.Name != f.name) {
			err = fmt.Errorf("found %.80q in its place", h.Name)
		}
		if err == nil {
			*f.data, err = io.ReadAll(io.LimitReader(r, livelayer.MaxSize)) // a sparse file may say that it is larger
		}
		if err != nil {
			return Publication{}, fmt.Errorf("%s of the publication: %w", f.name, err)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		return Publication{}, errors.New("the publication has more in it than two images' descriptions")
	}
	return p, nil
}

// Check returns both images if the owner signed them. Nothing of either is decoded
// before.
func (p Publication) Check(owner sign.PublicKey) (image, former Image, err error) {
	if image, err = check(p.Image, owner); err != nil {
		return Image{}, Image{}, fmt.Errorf("the published image: %w", err)
	}
	if former, err = check(p.Former, owner); err != nil {
		return Image{}, Image{}, fmt.Errorf("the image before the published one: %w", err)
	}
	return image, former, nil
}

func check(files description.Files, owner sign.PublicKey) (image Image, err error) {
	if err := files.SignedBy(owner); err != nil {
		return image, err
	}
	image.Files = files
	image.Manifest, image.Info, err = files.Decode()
	return image, err
}
