package blockdaemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"viver.lan/internal/description"
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

var errNoOwner = errors.New("this node has no owner's key, so it takes no other image: build its image again")

// readMetainfo reads the file torrent. If public names a file with the owner's key, the
// manifest beside torrent has to be signed with it, and to belong to the same image.
func readMetainfo(torrent, public string) (*metainfo.Info, error) {
	data, err := os.ReadFile(torrent)
	if err != nil {
		return nil, fmt.Errorf("open the image's metainfo: %w", err)
	}
	if public == "" {
		info, err := metainfo.Parse(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", torrent, err)
		}
		return info, nil
	}
	owner, err := sign.ReadPublicKey(public)
	if err != nil {
		return nil, err
	}
	beside := description.In(filepath.Dir(torrent))
	image, err := description.Read(func(name string) ([]byte, error) {
		if name == manifest.Metainfo { // whatever the file is called
			return data, nil
		}
		return beside(name)
	})
	if err != nil {
		return nil, fmt.Errorf("who signed %s: %w", torrent, err)
	}
	if err := image.SignedBy(owner); err != nil {
		return nil, fmt.Errorf("the image of %s is not signed by the owner of %s: %w", torrent, public, err)
	}
	_, info, err := image.Decode()
	return info, err
}
