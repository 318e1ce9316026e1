package bootfiles

import (
	"fmt"
	"io/fs"
	"path"
	"slices"

	"viver.lan/internal/decompress"
)

// readDecompressed returns a file's content decompressed according to its name.
func readDecompressed(linux fs.FS, name string) ([]byte, error) {
	data, err := fs.ReadFile(linux, name)
	if err != nil || !slices.Contains(decompress.Endings, path.Ext(name)) {
		return data, err
	}
	if data, err = decompress.Decompress(data, path.Ext(name)); err != nil {
		return nil, fmt.Errorf("decompress /%s: %w", name, err)
	}
	return data, nil
}
