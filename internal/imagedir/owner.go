package imagedir

import (
	"errors"
	"fmt"
	"path/filepath"

	"viver.lan/internal/bootfiles"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/sign"
)

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
	text, err := bootfiles.ReadOwner(filepath.Join(dir, manifest.Initramfs))
	if err != nil {
		return sign.PublicKey{}, err
	}
	inside, err := sign.ParsePublicKey(text)
	if err != nil {
		return sign.PublicKey{}, err
	}
	if err := inside.Verify(sign.Manifest, d.text, d.signature); err != nil {
		return sign.PublicKey{}, fmt.Errorf("%s would be refused by its own initramfs: %w; build the image again", dir, err)
	}
	return inside, nil
}
