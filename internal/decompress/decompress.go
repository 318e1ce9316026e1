// Package decompress reads kernel modules and firmware as distributions compress them:
// with gzip, xz or zstd. A module's signature is over what comes out. The invariant:
// what comes out is never longer than Most. On the way a reader may hold more: the file,
// and a dictionary as large as the file says (xz: up to 4 GiB). So the files have to be
// those of an image, whose maker is trusted.
package decompress

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Most is what a file may decompress to, in bytes; the largest modules known (for
// graphics) have some 30 MB.
const Most = 256 << 20

// Endings are those of the names of compressed files.
var Endings = []string{".xz", ".zst", ".gz"}

// Decompress returns what data holds, which has one of Endings.
func Decompress(data []byte, ending string) ([]byte, error) {
	var r io.Reader
	var err error
	switch in := bytes.NewReader(data); ending {
	case ".gz":
		r, err = gzip.NewReader(in)
	case ".xz":
		r, err = xz.NewReader(in)
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(in, zstd.WithDecoderConcurrency(1)); err == nil {
			defer d.Close()
			r = d
		}
	default:
		err = fmt.Errorf("unknown compression %q: expected %q", ending, Endings)
	}
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(r, Most+1))
	if err == nil && len(plain) > Most {
		err = fmt.Errorf("it decompresses to more than %d bytes", Most)
	}
	return plain, err
}
