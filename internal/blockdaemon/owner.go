package blockdaemon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/sign"
)

// verifyOverrides returns the check of overrides: that they are signed with the key
// whose public half is in a file. Without that file there is no check and no error:
// the image is from before there were owners.
func verifyOverrides(public string) (verify func(message, signature []byte) error, err error) {
	owner, err := sign.ReadPublicKey(public)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return func(message, signature []byte) error { return owner.Verify(sign.Override, message, signature) }, nil
}

// checkOwner checks that the image whose metainfo is in the file torrent is signed
// with the key in the file public: the manifest beside the metainfo is, and
// names its infohash.
func checkOwner(public, torrent string, info *metainfo.Info) error {
	owner, err := sign.ReadPublicKey(public)
	if err != nil {
		return err
	}
	dir := filepath.Dir(torrent)
	text, err := os.ReadFile(filepath.Join(dir, manifest.File))
	if err != nil {
		return fmt.Errorf("who signed %s: %w", torrent, err)
	}
	signature, err := os.ReadFile(filepath.Join(dir, manifest.Signature))
	if err != nil {
		return fmt.Errorf("who signed %s: %w", torrent, err)
	}
	if err := owner.Verify(sign.Manifest, text, signature); err != nil {
		return fmt.Errorf("the image of %s is not signed by the owner of %s: %w", torrent, public, err)
	}
	m, err := manifest.Read(bytes.NewReader(text))
	if err != nil {
		return err
	}
	if m.Infohash != info.Infohash {
		return fmt.Errorf("%s describes image %s, the signed manifest beside it %s: take all files from one image directory", torrent, info.Infohash, m.Infohash)
	}
	return nil
}
