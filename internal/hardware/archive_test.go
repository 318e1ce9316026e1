package hardware

import (
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// pack archives the files below dir with cpio(1) and packs them with program.
func pack(t testing.TB, dir string, program ...string) []byte {
	t.Helper()
	cmd := exec.Command("sh", "-c", `find . -mindepth 1 | sort | cpio --quiet -o -H newc | "$@"`, "sh")
	cmd.Args = append(cmd.Args, program...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cpio and %s are needed to make test data: %v", program[0], err)
	}
	return out
}

// write lays files out below dir; "-> target" is a symbolic link.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		name = filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(name), 0o755)
		if target, link := strings.CutPrefix(text, "-> "); err == nil && link {
			err = os.Symlink(target, name)
		} else if err == nil {
			err = os.WriteFile(name, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnpack(t *testing.T) {
	const module = "lib/modules/6.1/kernel/a.ko"
	for _, tt := range []struct {
		name    string
		files   map[string]string
		program []string
		spoil   func([]byte) []byte
		err     string
	}{
		{"zstd", map[string]string{module: "abc", "lib/firmware/x/y.bin": "12345", "lib/modules/6.1/kernel/empty.ko": ""}, []string{"zstd", "-q"}, nil, ""},
		{"gzip", map[string]string{module: strings.Repeat("long ", 100000)}, []string{"gzip"}, nil, ""},
		{"two archives", map[string]string{module: "abc", "lib/firmware/y.bin": "1"}, []string{"sh", "-c", `one=$(mktemp); cat >"$one"; cat "$one" /dev/zero | head -c $(($(wc -c <"$one") + 4096)) | zstd -q; zstd -q <"$one"; rm "$one"`}, nil, ""},
		{"behind an archive", map[string]string{module: "abc"}, []string{"sh", "-c", "cat; echo rest"}, gzipped, "too early"},
		{"another kernel", map[string]string{"lib/modules/6.2/a.ko": ""}, []string{"gzip"}, nil, "neither a module of kernel 6.1"},
		{"a program", map[string]string{"sbin/init": ""}, []string{"gzip"}, nil, `"sbin" is neither`},
		{"a link", map[string]string{module: "-> /etc/passwd"}, []string{"gzip"}, nil, "no plain file"},
		{"upwards", map[string]string{"lib/firmware/aa/etc": "x"}, []string{"sed", "s,firmware/aa,firmware/..,"}, gzipped, "neither"},
		{"plain", map[string]string{module: "abc"}, []string{"cat"}, nil, "neither zstd nor gzip"},
		{"cut off", map[string]string{module: strings.Repeat("x", 1000)}, []string{"cat"}, func(b []byte) []byte { return gzipped(b[:900]) }, "too early"},
		{"no trailer", map[string]string{module: ""}, []string{"sed", "s/TRAILER!!!/trailer!!!/"}, gzipped, "neither"},
		{"half a stream", map[string]string{module: "abc"}, []string{"zstd", "-q"}, func(b []byte) []byte { return b[:len(b)-9] }, "unpack modules"},
		{"nothing", nil, []string{"true"}, nil, "neither zstd nor gzip"},
		{"bad number", map[string]string{module: "abc"}, []string{"sed", "s/07070100/0707010x/g"}, gzipped, "header"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from, to := t.TempDir(), t.TempDir()
			write(t, from, tt.files)
			// Over what is there already, and through nobody's links.
			write(t, to, map[string]string{module: "an old one that is longer"})
			archive := pack(t, from, tt.program...)
			if tt.spoil != nil {
				archive = tt.spoil(archive)
			}
			root, err := os.OpenRoot(to)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			n, err := Unpack(root, "6.1", bytes.NewReader(archive))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("Unpack = %v, want %q", err, tt.err)
				}
				return
			}
			want := len(tt.files)
			if tt.name == "two archives" {
				want *= 2
			}
			if err != nil || n != want {
				t.Fatalf("Unpack = %d files, %v; want %d", n, err, want)
			}
			for name, want := range tt.files {
				if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != want {
					t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
				}
			}
		})
	}
}

// A file that cannot be written whole is not there at all.
func TestUnpackLeavesNoHalfModule(t *testing.T) {
	const module = "lib/modules/6.1/kernel/a.ko"
	from, to := t.TempDir(), t.TempDir()
	write(t, from, map[string]string{module: strings.Repeat("x", 1000)})
	root, err := os.OpenRoot(to)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := Unpack(root, "6.1", bytes.NewReader(gzipped(pack(t, from, "cat")[:1000]))); err == nil {
		t.Fatal("half an archive was taken")
	}
	if _, err := root.Stat(module); err == nil {
		t.Error("half a module was left")
	}
}

func FuzzUnpack(f *testing.F) {
	dir := f.TempDir()
	write(f, dir, map[string]string{"lib/modules/6.1/kernel/a.ko": "abc"})
	f.Add(pack(f, dir, "cat"))
	f.Fuzz(func(t *testing.T, plain []byte) {
		to := t.TempDir()
		root, err := os.OpenRoot(filepath.Clean(to))
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		_, _ = Unpack(root, "6.1", bytes.NewReader(gzipped(plain)))
		names, err := os.ReadDir(to)
		if err != nil || len(names) > 1 || len(names) == 1 && names[0].Name() != "lib" {
			t.Errorf("beside lib: %v, %v", names, err)
		}
	})
}

func gzipped(plain []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(plain)
	_ = w.Close()
	return b.Bytes()
}
