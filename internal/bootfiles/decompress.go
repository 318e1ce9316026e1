package bootfiles

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// compressions are the endings of compressed modules and firmware.
var compressions = []string{".xz", ".zst", ".gz"}

// maxDecompressed bounds a decompressed module or firmware file.
const maxDecompressed = 256 << 20

// readDecompressed returns a file's content decompressed according to its name.
// A module's signature is over the decompressed bytes, so it stays valid.
func readDecompressed(linux fs.FS, name string) ([]byte, error) {
	data, err := fs.ReadFile(linux, name)
	if err != nil {
		return nil, err
	}
	var r io.Reader
	switch path.Ext(name) {
	case ".xz":
		r, err = xz.NewReader(bytes.NewReader(data))
	case ".gz":
		r, err = gzip.NewReader(bytes.NewReader(data))
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1)); err == nil {
			defer z.Close()
			r = z
		}
	default:
		return data, nil
	}
	if err != nil {
		return nil, fmt.Errorf("decompress /%s: %w", name, err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxDecompressed))
	if err != nil {
		return nil, fmt.Errorf("decompress /%s: %w", name, err)
	}
	return plain, nil
}
