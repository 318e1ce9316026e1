package bootfiles

import (
	"errors"
	"fmt"
	"io"
	"os"

	"viver.lan/internal/manifest"
	"viver.lan/internal/newc"
)

// writeOwner begins an initramfs with the owner's public key, in an archive of its
// own that is not compressed: who asks whose images an initramfs takes need not
// decompress it.
func writeOwner(w io.Writer, owner []byte) error {
	c := newArchive(w)
	if err := c.file(manifest.OwnerKey, owner); err != nil {
		return err
	}
	return c.close()
}

// maxOwner is more than the size of the owner's public key as a file, in bytes.
const maxOwner = 8 << 10

// ReadOwner returns the owner's public key, as a file has it, that an initramfs
// begins with.
func ReadOwner(initramfs string) ([]byte, error) {
	f, err := os.Open(initramfs)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	key, err := readOwner(f)
	if err != nil {
		return nil, fmt.Errorf("%s holds no owner's key: %w; build the image again", initramfs, err)
	}
	return key, nil
}

func readOwner(initramfs io.Reader) ([]byte, error) {
	for archive := newc.NewReader(initramfs); ; {
		m, err := archive.Next()
		switch {
		case err == io.EOF:
			return nil, errors.New("its first archive has no " + manifest.OwnerKey)
		case err != nil:
			return nil, err
		case m.Name == manifest.OwnerKey:
			return m.Bytes(maxOwner)
		}
	}
}
