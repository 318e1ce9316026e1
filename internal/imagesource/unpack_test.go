package imagesource

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"viver.lan/internal/testlinux"
)

// compressors are the programs that people use.
func compressors() map[Kind][]string {
	return map[Kind][]string{kindGzip: {"gzip"}, kindXZ: {"xz"}, kindZstd: {"zstd", "-q"}, kindBzip2: {"bzip2"}}
}

// compressed has a program compress data.
func compressed(t *testing.T, kind Kind, data string) *io.SectionReader {
	t.Helper()
	name := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	testlinux.Run(t, "sh", "-ec", strings.Join(compressors()[kind], " ")+" -c "+name+" >"+name+".out")
	b, err := os.ReadFile(name + ".out")
	if err != nil {
		t.Fatal(err)
	}
	return section(b)
}

func section(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

func TestUnpack(t *testing.T) {
	zeros := strings.Repeat("\x00", 3<<20)
	want := "begin" + zeros + testlinux.Noise(100000) + zeros
	for kind := range compressors() {
		dir := t.TempDir()
		var read int
		f, err := unpack(context.Background(), dir, allow(0), kind, compressed(t, kind, want), func(n int) { read += n })
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		defer f.Close()
		if names := testlinux.Names(t, dir); len(names) > 0 {
			t.Errorf("%s: while it is open there are %q, which a kill would leave", kind, names)
		}
		got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
		if err != nil || string(got) != want || read == 0 {
			t.Errorf("%s: %d bytes, %v, want %d", kind, len(got), err, len(want))
		}
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 > 1<<20 {
			t.Errorf("%s: %d bytes take %d on the disk: zeros are no holes (%v)", kind, st.Size, st.Blocks*512, err)
		}
	}
}

func TestUnpackWhatIsNotWhole(t *testing.T) {
	for kind := range compressors() {
		all, err := io.ReadAll(compressed(t, kind, testlinux.Noise(600<<10)))
		if err != nil {
			t.Fatal(err)
		}
		for _, end := range []int{40, len(all) / 2, len(all) - 1} {
			if _, err := unpack(context.Background(), t.TempDir(), allow(0), kind, section(all[:end]), nil); !errors.Is(err, errCutOff) {
				t.Errorf("%s, %d of %d bytes: %v", kind, end, len(all), err)
			}
		}
		all[len(all)/2] ^= 1
		if _, err := unpack(context.Background(), t.TempDir(), allow(0), kind, section(all), nil); err == nil || errors.Is(err, errCutOff) {
			t.Errorf("%s with a bit flipped: %v", kind, err)
		}
	}
}

func TestUnpackEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for kind := range compressors() {
		if _, err := unpack(ctx, t.TempDir(), allow(0), kind, compressed(t, kind, "x"), nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// A file that was made to fill a disk is not unpacked to its end; zeros fill none.
func TestBomb(t *testing.T) {
	f, err := unnamed(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	room := allowance(1 << 20)
	w := &sparseWriter{f: f, room: &room}
	for range 100 {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			t.Fatalf("zeros: %v", err)
		}
	}
	_, err = io.Copy(w, io.LimitReader(endless{}, 1<<30))
	if !errors.Is(err, errBomb) || room < 0 {
		t.Errorf("%d bytes left, %v", room, err)
	}
	// xz, which is another program, is ended, and it is said why.
	w = &sparseWriter{f: f, room: &room}
	if err := decompress(context.Background(), kindXZ, compressed(t, kindXZ, strings.Repeat("bomb", 1<<20)), w); !errors.Is(err, errBomb) {
		t.Errorf("xz: %v", err)
	}
}

// A source has one allowance, however it is packed.
func TestBombOfSeveralParts(t *testing.T) {
	const size = 600 << 10
	dir := t.TempDir()
	noise := filepath.Join(dir, "noise")
	if err := os.WriteFile(noise, []byte(testlinux.Noise(size)), 0o600); err != nil {
		t.Fatal(err)
	}
	testlinux.Run(t, "sh", "-ec", "cd "+dir+"; gzip -c noise | gzip >twice; qemu-img convert -c -O qcow2 noise disk; gzip disk")
	l := layout{}
	image := l.image(t, "amd64", "cp "+noise+" f", "cp "+noise+" f", "cp "+noise+" f") // one blob, three times
	l.index(t, image)
	for name, parts := range map[string]int{filepath.Join(dir, "twice"): 2, filepath.Join(dir, "disk.gz"): 2, l.archive(t): 3} {
		for _, c := range []struct {
			room allowance
			bomb bool
		}{{allowance(parts)*size - size/3, true}, {allowance(parts)*size + size/3, false}} {
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			s := &Source{room: &c.room}
			s.closeLater(f)
			err = s.openFile(t.Context(), f, Options{Work: t.TempDir()})
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if errors.Is(err, errBomb) != c.bomb {
				t.Errorf("%s: %v, want a bomb: %v", name, err, c.bomb)
			}
		}
	}
}

// The size of a layout is that of its files, of each once.
func TestSizeOfALayout(t *testing.T) {
	dir := testlinux.Write(t, []testlinux.File{{Name: "a", Data: "12345"}, {Name: "b", Data: "12"}})
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "c")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := &dirStore{root: root}
	defer d.Close()
	for _, name := range []string{"a", "b", "a", "./a", "c"} {
		if _, err := d.open(name); err != nil {
			t.Error(err)
		}
	}
	if d.size != 7 {
		t.Errorf("%d bytes, want 7", d.size)
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}
