package imagedir

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/newc"
	"viver.lan/internal/sign"
)

// WriteOwner begins an initramfs with the owner's public key, in an archive of
// its own that is not compressed: the kernel unpacks archive after archive,
// compressed or not (buffer-format.rst), and who asks whose images an initramfs
// takes need not decompress it.
func WriteOwner(w io.Writer, owner sign.PublicKey) error {
	c := newc.NewWriter(w)
	if err := c.File(manifest.OwnerKey, owner.Text()); err != nil {
		return err
	}
	return c.Close()
}

// ownerArchive is more than the bytes that WriteOwner writes.
const ownerArchive = 8 << 10

// readOwner returns the public key that an initramfs begins with.
func readOwner(initramfs string) (sign.PublicKey, error) {
	f, err := os.Open(initramfs)
	if err != nil {
		return sign.PublicKey{}, err
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, ownerArchive))
	if err != nil {
		return sign.PublicKey{}, err
	}
	text, err := newc.First(head, manifest.OwnerKey)
	if err != nil {
		return sign.PublicKey{}, fmt.Errorf("%s holds no owner's key: %w; build the image again", initramfs, err)
	}
	return sign.ParsePublicKey(text)
}

// description is what stands beside an image's payload.
type description struct {
	manifest *manifest.Manifest
	info     *metainfo.Info
	text     []byte // of the manifest, as it is signed
	// signature of text.
	signature []byte
}

// ErrNotOwner marks an image that was not signed with the key it was compared
// with.
var ErrNotOwner = errors.New("is not an image of this owner")

// signedBy checks that the owner signed the image in dir.
func (d description) signedBy(dir string, owner sign.PublicKey) error {
	if err := owner.Verify(sign.Manifest, d.text, d.signature); err != nil {
		return fmt.Errorf("%s %w: %w", dir, ErrNotOwner, err)
	}
	return nil
}

// ownKey returns the key in the initramfs of the image in dir, and checks that it
// takes the image.
func (d description) ownKey(dir string) (sign.PublicKey, error) {
	inside, err := readOwner(filepath.Join(dir, manifest.Initramfs))
	if err != nil {
		return sign.PublicKey{}, err
	}
	if err := inside.Verify(sign.Manifest, d.text, d.signature); err != nil {
		return sign.PublicKey{}, fmt.Errorf("%s would be refused by its own initramfs: %w; build the image again", dir, err)
	}
	return inside, nil
}
