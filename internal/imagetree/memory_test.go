package imagetree

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"viver.lan/internal/sparsetar"
)

// files is an archive of many small files, made while it is read: file i has its name,
// padded to a block, behind its header.
type files struct {
	n     int
	block [2 * sparsetar.BlockSize]byte
	made  int // the file that is in block, counted from 1
}

func fileName(i int) string {
	return fmt.Sprintf("srv/data/%03d/%03d/file-%03d", i/1e6, i/1e3%1e3, i%1e3)
}

// size is that of the archive.
func (f *files) size() int64 { return int64(f.n)*int64(len(f.block)) + 2*sparsetar.BlockSize }

func (f *files) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < f.size() {
		i := int(off / int64(len(f.block)))
		f.make(i)
		k := copy(p[n:], f.block[off%int64(len(f.block)):])
		n, off = n+k, off+int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *files) make(i int) {
	if f.made == i+1 {
		return
	}
	f.made, f.block = i+1, [len(f.block)]byte{}
	if i == f.n { // the two blocks that end an archive
		return
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: fileName(i), Mode: 0o644, Size: int64(len(fileName(i)))}) // into memory
	_, _ = io.WriteString(w, fileName(i))
	_ = w.Flush()
	copy(f.block[:], b.Bytes())
}

// perFile is how much memory an index may take for each file, in bytes: docs/images.md says
// what a million takes.
const perFile = 700

// TestMemoryOfManyFiles counts what stays in memory of the index of many files, of an
// archive and of a directory, which has a tenth of them. VIVER_MANY says how many instead.
func TestMemoryOfManyFiles(t *testing.T) {
	n := 20000
	if many := os.Getenv("VIVER_MANY"); many != "" {
		if _, err := fmt.Sscan(many, &n); err != nil {
			t.Fatal(err)
		}
	}
	inMemory := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	index := func(kind string, n int, scan func() (*Tree, error)) {
		before := inMemory()
		tree, err := scan()
		if err != nil {
			t.Fatal(err)
		}
		taken := inMemory() - before
		var found int
		_ = tree.Walk(func(_ string, e *Entry) error { // nothing in it fails
			if e.Open != nil {
				found++
			}
			return nil
		})
		if found != n {
			t.Errorf("%s: %d files, want %d", kind, found, n)
		}
		if taken > int64(n)*perFile {
			t.Errorf("%s: %d bytes for each file, want %d at most", kind, taken/int64(n), perFile)
		}
		t.Logf("%s of %d files: %d MiB, %d bytes for each", kind, n, taken>>20, taken/int64(n))
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	}
	archive := &files{n: n}
	index("archive", n, func() (*Tree, error) { return ScanTar(t.Context(), Archive{Data: archive, Size: archive.size()}, nil) })
	root := t.TempDir()
	for i := range n / 10 {
		name := filepath.Join(root, fileName(i))
		if i%1000 == 0 {
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	index("directory", n/10, func() (*Tree, error) { return Scan(t.Context(), root, nil) })
}
