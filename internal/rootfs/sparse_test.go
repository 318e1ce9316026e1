package rootfs

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"viver.lan/internal/imagetree"
	"viver.lan/internal/testlinux"
)

// hole is a stretch of a test file: data, or as many zeros that are not stored.
type hole struct {
	data string
	skip int64
}

// writeHoles makes a file of data and holes.
func writeHoles(t *testing.T, name string, parts ...hole) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var at int64
	for _, p := range parts {
		if _, err := f.WriteAt([]byte(p.data), at); err != nil {
			t.Fatal(err)
		}
		at += int64(len(p.data)) + p.skip
	}
	if err := f.Truncate(at); err != nil {
		t.Fatal(err)
	}
}

// TestHoles takes files with holes from a directory and from every form that
// GNU tar has for them into a squashfs: the same bytes come out, and holes cost
// neither the way there nor the image.
func TestHoles(t *testing.T) {
	testlinux.Tool(t, "mksquashfs")
	root := t.TempDir()
	var many []hole
	for i := range 60 { // more than an old header and two blocks behind it hold
		many = append(many, hole{testlinux.Noise(4096 + i), 300 << 10})
	}
	files := map[string][]hole{
		"begins-with-a-hole": {{skip: 1 << 20}, {data: "END"}},
		"ends-with-a-hole":   {{data: "BEGIN", skip: 1<<20 + 3}},
		"nothing-else":       {{skip: 3<<20 + 1}},
		"many":               many,
		"small-holes":        {{testlinux.Noise(4096), 8192}, {testlinux.Noise(4096), 8192}, {testlinux.Noise(4096), 0}},
		"none":               {{testlinux.Noise(200 << 10), 0}},
		"zz-last":            {{testlinux.Noise(3 << 20), 0}}, // a map that is wrong shifts what follows
	}
	for name, parts := range files {
		writeHoles(t, filepath.Join(root, name), parts...)
	}
	sources := map[string]string{"directory": root}
	for name, args := range map[string][]string{
		"gnu": {"--format=gnu"}, "pax 0.0": {"--format=posix", "--sparse-version=0.0"},
		"pax 0.1": {"--format=posix", "--sparse-version=0.1"}, "pax 1.0": {"--format=posix", "--sparse-version=1.0"},
	} {
		sources[name] = filepath.Join(t.TempDir(), "t.tar")
		testlinux.Run(t, "tar", append(args, "--sparse", "-C", root, "-cf", sources[name], ".")...)
	}
	for name, source := range sources {
		t.Run(name, func(t *testing.T) {
			tree, err := imagetree.Scan(context.Background(), source, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			if data, err := tree.ReadFile("many"); err != nil || !bytes.Equal(data, read(t, filepath.Join(root, "many"))) {
				t.Errorf("read by ourselves: %d other bytes, %v", len(data), err)
			}
			var stream counted
			if err := writeTar(context.Background(), tree, &stream, t.TempDir(), ignore); err != nil {
				t.Fatal(err)
			}
			if stream > 5<<20 {
				t.Errorf("%d bytes on the way for 26 MiB with holes", stream)
			}
			out := filepath.Join(t.TempDir(), "root")
			if err := Write(context.Background(), tree, out, 1, ignore); err != nil {
				t.Fatal(err)
			}
			back := filepath.Join(t.TempDir(), "back")
			testlinux.Run(t, "unsquashfs", "-quiet", "-no-progress", "-d", back, out)
			for name := range files {
				if !bytes.Equal(read(t, filepath.Join(back, name)), read(t, filepath.Join(root, name))) {
					t.Errorf("%s: other bytes", name)
				}
			}
		})
	}
}

// TestHolesAreNotRead streams eight tebibytes of nothing.
func TestHolesAreNotRead(t *testing.T) {
	root := t.TempDir()
	huge := filepath.Join(root, "huge")
	if err := os.WriteFile(huge, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, 8<<40); err != nil {
		t.Skip(err)
	}
	archive := filepath.Join(t.TempDir(), "t.tar")
	testlinux.Run(t, "tar", "--sparse", "-C", root, "-cf", archive, ".")
	for _, source := range []string{root, archive} {
		tree, err := imagetree.Scan(context.Background(), source, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		var stream counted
		if err := writeTar(context.Background(), tree, &stream, t.TempDir(), ignore); err != nil || stream > 64<<10 {
			t.Errorf("%s: %d bytes, %v", source, stream, err)
		}
		if _, err := tree.ReadFile("huge"); err == nil {
			t.Error("it was read into memory")
		}
	}
}

// counted counts what is written to it.
type counted int64

func (c *counted) Write(p []byte) (int, error) {
	*c += counted(len(p))
	return len(p), nil
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Error(err)
	}
	return data
}
