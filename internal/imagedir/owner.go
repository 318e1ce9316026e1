package imagedir

import (
	"fmt"
	"path/filepath"

	"viver.lan/internal/bootfiles"
	"viver.lan/internal/description"
	"viver.lan/internal/manifest"
	"viver.lan/internal/sign"
)

// ownKey returns the key in the initramfs of the image in dir, and checks that it
// takes the image.
func ownKey(dir string, image description.Files) (sign.PublicKey, error) {
	text, err := bootfiles.ReadOwner(filepath.Join(dir, manifest.Initramfs))
	if err != nil {
		return sign.PublicKey{}, err
	}
	inside, err := sign.ParsePublicKey(text)
	if err != nil {
		return sign.PublicKey{}, err
	}
	if err := image.SignedBy(inside); err != nil {
		return sign.PublicKey{}, fmt.Errorf("%s would be refused by its own initramfs: %w; build the image again", dir, err)
	}
	return inside, nil
}
