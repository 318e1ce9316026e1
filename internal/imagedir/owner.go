package imagedir

import (
	"context"
	"fmt"
	"path/filepath"

	"viver.lan/internal/bootfiles"
	"viver.lan/internal/description"
	"viver.lan/internal/manifest"
	"viver.lan/internal/sign"
)

// insideKey returns the key in the initramfs of the image in dir.
func insideKey(dir string) (sign.PublicKey, error) {
	text, err := bootfiles.ReadOwner(filepath.Join(dir, manifest.Initramfs))
	if err != nil {
		return sign.PublicKey{}, err
	}
	return sign.ParsePublicKey(text)
}

// ownKey returns the key in the initramfs of the image in dir, and checks that it
// takes the image.
func ownKey(dir string, image description.Files) (sign.PublicKey, error) {
	inside, err := insideKey(dir)
	if err != nil {
		return sign.PublicKey{}, err
	}
	if err := image.SignedBy(inside); err != nil {
		return sign.PublicKey{}, fmt.Errorf("%s would be refused by its own initramfs: %w; build the image again", dir, err)
	}
	return inside, nil
}

// Sign signs the image in dir again: its signature was lost or damaged, or is not there. Every
// byte is compared with the description first. Another owner's image it does not sign,
// since machines take images by the key in their initramfs.
func Sign(ctx context.Context, dir string, key sign.PrivateKey, progress func(done, total int64)) (*manifest.Manifest, error) {
	var files description.Files
	var err error
	if files.Manifest, err = description.In(dir)(manifest.File); err == nil {
		files.Metainfo, err = description.In(dir)(manifest.Metainfo)
	}
	if err != nil {
		return nil, fmt.Errorf("%s is no image: %w", dir, err)
	}
	m, info, err := files.Decode()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	v := &Verified{Manifest: m}
	if err := v.compare(ctx, dir, info, progress); err != nil {
		return nil, err
	}
	if err := v.Err(); err != nil {
		return nil, err
	}
	inside, err := insideKey(dir)
	if err != nil {
		return nil, err
	}
	if !inside.Equal(key.Public()) {
		return nil, fmt.Errorf("%s is for machines that take images of key %s, and this is key %s: sign with that key, or build the image with this one", dir, inside.ID(), key.Public().ID())
	}
	files.Signature = key.Sign(sign.Manifest, files.Manifest)
	return m, files.Write(dir)
}
