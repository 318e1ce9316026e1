package squashdelta

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/squashmap"
	"viver.lan/internal/testlinux"
)

// noise is content that no other seed has.
func noise(seed, n int) string {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(b)
	return string(b)
}

// member is a file of an archive, from which squashfs makes one.
type member struct {
	tar.Header
	data string
}

func file(name, data string) member {
	return member{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, ModTime: time.Unix(1e9, 0)}, data}
}

// sample are files of each kind and size, with all attributes.
func sample() []member {
	list := []member{
		file("etc/motd", "welcome\n"), file("etc/empty", ""), file("a/block", noise(1, 128<<10)), file("a/blocks", noise(2, 300<<10)),
		file("a/text", strings.Repeat("all work and no play\n", 40000)), file("a/zeros", strings.Repeat("\x00", 500_000)),
		file("odd/new\nline \xe9", noise(3, 200<<10)), file("twice/one", noise(4, 150_000)), file("twice/two", noise(4, 150_000)),
		{tar.Header{Typeflag: tar.TypeLink, Name: "z/link", Linkname: "a/blocks"}, ""},
		{tar.Header{Typeflag: tar.TypeLink, Name: "z/small", Linkname: "etc/motd"}, ""},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "sym", Linkname: "etc/motd", ModTime: time.Unix(5, 0)}, ""},
		{tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""},
		{tar.Header{Typeflag: tar.TypeBlock, Name: "dev/sda", Mode: 0o660, Devmajor: 8, Devminor: 300, Gid: 6}, ""},
		{tar.Header{Typeflag: tar.TypeFifo, Name: "run/fifo", Mode: 0o600}, ""},
		{tar.Header{Typeflag: tar.TypeDir, Name: "nothing/", Mode: 0o1777, Uid: 4_000_000_000, ModTime: time.Unix(77, 0)}, ""},
	}
	caps := file("bin/ping", noise(5, 70_000))
	caps.Mode, caps.Uid, caps.Gid = 0o4755, 1000, 70000
	caps.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00 \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "SCHILY.xattr.user.note": strings.Repeat("v", 3000)}
	list = append(list, caps)
	labelled := member{tar.Header{Typeflag: tar.TypeDir, Name: "srv/", Mode: 0o750, PAXRecords: map[string]string{"SCHILY.xattr.user.d": "x"}}, ""}
	list = append(list, labelled)
	for i := range 900 { // more than a head counts, than a block of a table holds, and enough for an index
		list = append(list, file(fmt.Sprintf("many/a-rather-long-name-of-a-file-in-a-directory-%03d", i), noise(100+i, 200+i)))
	}
	return list
}

func change(list []member, changes ...member) []member {
	out := slices.Clone(list)
	for _, c := range changes {
		out = slices.DeleteFunc(out, func(m member) bool { return m.Name == c.Name })
		if c.data != "-" {
			out = append(out, c)
		}
	}
	return out
}

// squashfs makes one as package rootfs does, and returns its bytes.
func squashfs(t testing.TB, list []member, flags ...string) []byte {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, m := range list {
		m.Size = int64(len(m.data))
		m.Format = tar.FormatPAX
		if err := w.WriteHeader(&m.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return testlinux.Squashfs(t, &archive, append([]string{"-Xcompression-level", "1"}, flags...)...)
}

func image(b []byte) Image { return Image{bytes.NewReader(b), int64(len(b))} }

// merge returns what there is onto the old one, and the plan.
func merge(t testing.TB, old, fresh []byte) ([]byte, *Plan) {
	t.Helper()
	var last, total int64
	plan, err := Compare(context.Background(), image(old), image(fresh), func(done, of int64) {
		if done < last || done > of {
			t.Errorf("progress %d of %d, after %d", done, of, last)
		}
		last, total = done, of
	})
	if err != nil {
		t.Fatal(err)
	}
	defer plan.Close()
	f, err := os.Create(filepath.Join(t.TempDir(), "merged"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := plan.Write(context.Background(), f)
	if err != nil {
		t.Fatal(err)
	}
	if last < total*9/10 {
		t.Errorf("progress ends with %d of %d", last, total)
	}
	data, err := os.ReadFile(f.Name())
	if err != nil || int64(len(data)) != size {
		t.Fatalf("%d bytes, want %d: %v", len(data), size, err)
	}
	return data, plan
}

// seen is a file system as unsquashfs sees it: each file with its attributes, hard links and
// content, and its extended attributes, which it sets where a user may.
func seen(t *testing.T, fs []byte) string {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "fs")
	if err := os.WriteFile(name, fs, 0o600); err != nil {
		t.Fatal(err)
	}
	testlinux.Run(t, "unsquashfs", "-quiet", "-pf", filepath.Join(dir, "pseudo"), name)
	pseudo, err := os.ReadFile(filepath.Join(dir, "pseudo"))
	if err != nil {
		t.Fatal(err)
	}
	testlinux.Run(t, "unsquashfs", "-quiet", "-no-progress", "-user-xattrs", "-d", filepath.Join(dir, "out"), name, "bin", "srv")
	all := []string{string(pseudo)}
	for _, a := range [][2]string{{"bin/ping", "user.note"}, {"srv", "user.d"}} {
		value := make([]byte, 4096)
		n, err := unix.Lgetxattr(filepath.Join(dir, "out", a[0]), a[1], value)
		if err != nil && !errors.Is(err, unix.ENOTSUP) {
			t.Errorf("%s of %s: %v", a[1], a[0], err)
		}
		all = append(all, string(value[:max(n, 0)]))
	}
	return strings.Join(all, "\n")
}

func TestSameTree(t *testing.T) {
	base := sample()
	usual := squashfs(t, base)
	long := member{tar.Header{Typeflag: tar.TypeSymlink, Name: "sym", Linkname: strings.Repeat("far/", 60)}, ""}
	older := file("etc/motd", "welcome\n")
	older.Uid, older.ModTime = 7, time.Unix(9, 0)
	for _, c := range []struct {
		name  string
		fresh []member
		flags []string // of the old one
		// most is how much of the new one there may be that the old one has not, in bytes,
		// without tables
		most int64
	}{
		{"nothing", base, nil, 0},
		{"another compression", base, []string{"-Xcompression-level", "19"}, 0},
		{"other blocks for ends", base, []string{"-no-fragments"}, 0},
		{"nothing compressed", base, []string{"-noI", "-noD", "-noF", "-noX"}, 0},
		{"the owner of a file", change(base, older), nil, 0},
		{"a link", change(base, long), nil, 0},
		{"a line", change(base, file("etc/motd", "welcome!\n")), nil, 20},
		{"a name", change(base, file("a/blocks", "-"), file("b/blocks", noise(2, 300<<10)), file("z/link", "-")), nil, 0},
		{"a large file", change(base, file("a/block", noise(20, 400<<10))), nil, 405 << 10},
		{"many", change(base, func() (l []member) {
			for i := range 300 {
				l = append(l, file(fmt.Sprintf("many/a-rather-long-name-of-a-file-in-a-directory-%03d", 3*i), noise(2000+i, 900)))
			}
			return l
		}()...), nil, 280 << 10},
		{"the first file", append([]member{file("0", noise(21, 1000))}, base...), nil, 1100},
	} {
		t.Run(c.name, func(t *testing.T) {
			old, fresh := usual, squashfs(t, c.fresh)
			if c.flags != nil {
				old = squashfs(t, base, c.flags...)
			}
			got, plan := merge(t, old, fresh)
			if a, b := seen(t, got), seen(t, fresh); a != b {
				i := 0
				for i < min(len(a), len(b)) && a[i] == b[i] {
					i++
				}
				t.Fatalf("unsquashfs sees %q, want %q", a[max(0, i-60):min(i+60, len(a))], b[max(0, i-60):min(i+60, len(b))])
			}
			end := plan.oldEnd
			if !bytes.Equal(got[superblockSize:end], old[superblockSize:end]) {
				t.Error("the blocks of the old one are not as they were")
			}
			fs, err := squashmap.Open(bytes.NewReader(got), int64(len(got)))
			if err != nil {
				t.Fatal(err)
			}
			defer fs.Close()
			if n := fs.DataEnd - end; n > c.most {
				t.Errorf("%d bytes of new blocks, want at most %d", n, c.most)
			}
		})
	}
	t.Run("a second time", func(t *testing.T) {
		old, fresh := squashfs(t, base), squashfs(t, change(base, older, file("new", noise(30, 200_000))))
		got, _ := merge(t, old, fresh)
		if again, _ := merge(t, old, fresh); !bytes.Equal(again, got) {
			t.Error("the same two gave something else")
		}
		if again, plan := merge(t, got, fresh); !bytes.Equal(again[superblockSize:], got[superblockSize:]) || plan.Dead > 300 {
			t.Errorf("onto itself: %d bytes, want the same %d; %d are dead", len(again), len(got), plan.Dead)
		}
	})
}

func TestDead(t *testing.T) {
	base := []member{file("a", noise(1, 512<<10)), file("b", noise(2, 256<<10)), file("c", noise(3, 256<<10))}
	old := squashfs(t, base)
	for want, fresh := range map[int64][]member{
		0:    append(base, file("d", "more")),
		256:  change(base, file("b", "-")),
		512:  change(base, file("a", noise(9, 512<<10))),
		1024: {file("x", "y")},
	} {
		_, plan := merge(t, old, squashfs(t, fresh))
		if got := plan.Dead >> 10; got < want-1 || got > want+1 || plan.Old>>10 != 1024 {
			t.Errorf("%d KiB of %d are dead, want %d", got, plan.Old>>10, want)
		}
	}
}

func TestRefuses(t *testing.T) {
	base := []member{file("a", noise(1, 300<<10)), file("b", "text")}
	good := squashfs(t, base)
	for _, c := range []struct {
		name, want string
		old        []byte
	}{
		{"no squashfs", "the old one: read squashfs: it is none", []byte("text")},
		{"other blocks", "the old one has blocks of 65536 bytes, and new ones have 131072", squashfs(t, base, "-b", "64K")},
		{"cut off", "the old one: read squashfs: it has", good[:len(good)/2]},
	} {
		_, err := Compare(context.Background(), image(c.old), image(good), func(int64, int64) {})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Compare(ctx, image(good), image(good), func(int64, int64) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// liar forgets what is written to it at one place.
type liar struct {
	File
	at int64
}

func (l liar) WriteAt(p []byte, at int64) (int, error) {
	if at <= l.at && l.at < at+int64(len(p)) {
		p = slices.Clone(p)
		p[l.at-at] ^= 0x40
	}
	return l.File.WriteAt(p, at)
}

// TestReadAgain has a disk that writes other bytes.
func TestReadAgain(t *testing.T) {
	old := squashfs(t, []member{file("a", noise(1, 300<<10))})
	fresh := squashfs(t, []member{file("a", noise(1, 300<<10)), file("b", noise(2, 1000))})
	plan, err := Compare(context.Background(), image(old), image(fresh), func(int64, int64) {})
	if err != nil {
		t.Fatal(err)
	}
	defer plan.Close()
	for _, at := range []int64{1000, plan.oldEnd + 10, plan.oldEnd + 1100} {
		f, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := plan.Write(context.Background(), liar{f, at}); err == nil || !strings.Contains(err.Error(), "is not what was to be written") {
			t.Errorf("byte %d: %v", at, err)
		}
	}
}

// buffer is a file in memory.
type buffer []byte

func (b *buffer) WriteAt(p []byte, at int64) (int, error) {
	if n := int(at) + len(p); n > len(*b) {
		*b = append(*b, make([]byte, n-len(*b))...)
	}
	return copy((*b)[at:], p), nil
}

func (b *buffer) ReadAt(p []byte, at int64) (int, error) { return bytes.NewReader(*b).ReadAt(p, at) }

// FuzzCompare takes any bytes for both: there is a result, or an error.
func FuzzCompare(f *testing.F) {
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		f.Skip("mksquashfs is not installed")
	}
	list := []member{file("a/small", "content"), file("b", noise(1, 20<<10)), {tar.Header{Typeflag: tar.TypeSymlink, Name: "c", Linkname: "b"}, ""}}
	list[0].PAXRecords = map[string]string{"SCHILY.xattr.user.note": "value"}
	flags := []string{"-noI", "-noD", "-noF", "-noX", "-b", "4K"}
	f.Add(squashfs(f, list, flags...), squashfs(f, list[:2], flags...))
	f.Add(squashfs(f, list[:1], flags...), squashfs(f, list, "-b", "4K"))
	f.Fuzz(func(t *testing.T, old, fresh []byte) {
		plan, err := Compare(context.Background(), image(old), image(fresh), func(int64, int64) {})
		if err != nil {
			return
		}
		defer plan.Close()
		if plan.Dead < 0 || plan.Dead > plan.Old {
			t.Errorf("%d of %d are dead", plan.Dead, plan.Old)
		}
		_, _ = plan.Write(context.Background(), new(buffer))
	})
}
