package bootfiles

import (
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"viver.lan/kernelconfig"
)

// Whatever compresses, the kernel's format comes out, whole.
func TestCompressInitramfs(t *testing.T) {
	content := strings.Repeat("all work and no play makes jack a dull boy\n", 100_000)
	fill := func(w io.Writer) error {
		_, err := io.WriteString(w, content)
		return err
	}
	unzstd := func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) }
	for _, c := range []struct {
		name    string
		config  kernelconfig.Config
		size    int
		without bool // the program zstd
		open    func(io.Reader) (io.Reader, error)
	}{
		{"zstd", kernelconfig.Config{"RD_ZSTD": "y", "RD_GZIP": "y"}, 0, false, unzstd},
		{"no configuration", nil, 0, false, unzstd},
		{"known size", nil, len(content), false, unzstd},
		{"no program", kernelconfig.Config{"RD_ZSTD": "y"}, 0, true, unzstd},
		{"old kernel", kernelconfig.Config{"RD_GZIP": "y"}, 0, false, func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.without {
				t.Setenv("PATH", t.TempDir())
			}
			// After what is in the file already, as the owner's key is.
			file, err := os.Create(filepath.Join(t.TempDir(), "x"))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if _, err := file.WriteString("before"); err != nil {
				t.Fatal(err)
			}
			if err := compressInitramfs(context.Background(), file, c.config, forFirmware, c.size, fill); err != nil {
				t.Fatal(err)
			}
			all, err := os.ReadFile(file.Name())
			if err != nil {
				t.Fatal(err)
			}
			r, err := c.open(strings.NewReader(strings.TrimPrefix(string(all), "before")))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || string(got) != content {
				t.Errorf("%d bytes come out, %v; %d went in", len(got), err, len(content))
			}
		})
	}
}
