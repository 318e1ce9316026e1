package imagebuild

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/imagedir"
	"viver.lan/internal/manifest"
	"viver.lan/internal/squashmap"
	"viver.lan/internal/testlinux"
)

// profiled are files that do not compress: those of a profile, which come last in name
// order, and others. What is less than a block, of 128 KiB, is in fragments, which are
// written when the next such file or end of a file does not fit: so the other files
// begin with these.
func profiled(t *testing.T) (files []testlinux.File, profile []string) {
	noise := testlinux.Noise(16 << 20)
	next := func(n int) (data string) {
		data, noise = noise[:n], noise[n:]
		return data
	}
	files = testlinux.Files(t)
	for i := range 8 {
		files = append(files,
			testlinux.File{Name: fmt.Sprintf("a/large-%d", i), Data: next(356 << 10)}, testlinux.File{Name: fmt.Sprintf("a/a-small-%d", i), Data: next(30 << 10)},
			testlinux.File{Name: fmt.Sprintf("z/large-%d", i), Data: next(200 << 10)}, testlinux.File{Name: fmt.Sprintf("z/small-%d", i), Data: next(30 << 10)})
	}
	for _, i := range []int{3, 0, 7, 5, 6, 1, 2, 4} {
		profile = append(profile, fmt.Sprintf("z/large-%d", i), fmt.Sprintf("z/small-%d", i))
	}
	files = append(files, testlinux.File{Name: "z/new\nline \xe9", Data: next(150 << 10)})
	return files, append(profile, "z/new\nline \xe9", "no/such/file", "etc")
}

// buildFirst builds files with a profile and returns the image, and what was noted.
func buildFirst(t *testing.T, files []testlinux.File, profile []string) (image string, notes []string) {
	t.Helper()
	testlinux.Tool(t, "mksquashfs")
	image = filepath.Join(t.TempDir(), "fake")
	c := Config{Source: testlinux.Write(t, files), Output: image, Lib: testlinux.Lib(t), Key: testlinux.Key(), Level: 1, PieceLength: 16 << 10,
		Created: time.Unix(1e9, 0), First: profile, Note: func(s string) { notes = append(notes, s) }}
	if _, err := Build(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	return image, notes
}

// TestFilesOfTheProfileLieFirst asks the map of the file system, and then unsquashfs,
// when all that lies behind so many bytes as these files have is gone.
func TestFilesOfTheProfileLieFirst(t *testing.T) {
	files, profile := profiled(t)
	image, notes := buildFirst(t, files, profile)
	if want := "17 files of the profile lie first; 2 are not in the source"; !slices.Contains(notes, want) {
		t.Errorf("notes %q, want %q", notes, want)
	}
	root, err := os.ReadFile(filepath.Join(image, manifest.Root))
	if err != nil {
		t.Fatal(err)
	}
	places := make(map[string]squashmap.File)
	list, err := squashmap.Read(strings.NewReader(string(root)), int64(len(root)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		places[f.Path] = f
	}
	var last squashmap.Extent
	size := 0
	for _, name := range profile[:17] {
		for _, at := range places[name].Blocks[:len(places[name].Blocks)-1] { // the last is a fragment
			size += int(at.Length)
			if at.Offset < last.Offset+last.Length {
				t.Errorf("%q lies at %v, what is before it in the profile at %v", name, at, last)
			}
			last = at
		}
	}
	if first := places["a/large-0"].Blocks[0]; last.Length == 0 || first.Offset < last.Offset {
		t.Errorf("another file lies at %v, before the last of the profile at %v", first, last)
	}

	// The profile's ends and small files are in fragments, of which two begin at its end.
	size += 8*(72<<10) + 8*(30<<10) + 22<<10 + 3*(128<<10)
	clear(root[size:binary.LittleEndian.Uint64(root[64:])]) // all data from there to the tables
	damaged := filepath.Join(t.TempDir(), "damaged")
	if err := os.WriteFile(damaged, root, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		ours := strings.HasPrefix(f.Name, "z/")
		if !ours && (f.Name < "a/large-2" || f.Name > "a/large-9") {
			continue
		}
		out, err := exec.Command("unsquashfs", "-no-wildcards", "-cat", damaged, f.Name).Output()
		if whole := err == nil && string(out) == f.Data; whole != ours {
			t.Errorf("%q is whole: %v, %v", f.Name, whole, err)
		}
	}
}

// TestProfileOfAnotherKernel: its modules stand for those of the image's.
func TestProfileOfAnotherKernel(t *testing.T) {
	files, _ := profiled(t)
	_, notes := buildFirst(t, files, []string{"lib/modules/5.10.0-1-old/kernel/drivers/block/loop.ko", "lib/modules/5.10.0-1-old/kernel/gone.ko", "boot/config-5.10.0-1-old"})
	if want := "1 files of the profile lie first; 2 are not in the source"; !slices.Contains(notes, want) {
		t.Errorf("notes %q, want %q", notes, want)
	}
}

// TestProfileIsReproducible: the same tree and profile give the same image, and
// a profile none of whose files are there the one without.
func TestProfileIsReproducible(t *testing.T) {
	files, profile := profiled(t)
	hash := func(profile []string) string {
		image, _ := buildFirst(t, files, profile)
		v, err := imagedir.Verify(context.Background(), image, testlinux.Key().Public(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return v.Manifest.Infohash.String()
	}
	a, b, other, none := hash(profile), hash(profile), hash([]string{"no/such/file"}), hash(nil)
	if a != b || other != none || a == none {
		t.Errorf("with a profile %s and %s, with one of no use %s, without %s", a, b, other, none)
	}
}

// TestSeparateFilesShareNoBlock: what is read of such an image tells which files were.
func TestSeparateFilesShareNoBlock(t *testing.T) {
	testlinux.Tool(t, "mksquashfs")
	files, _ := profiled(t)
	source := testlinux.Write(t, files)
	for _, separate := range []bool{false, true} {
		image := filepath.Join(t.TempDir(), "fake")
		if _, err := Build(context.Background(), Config{Source: source, Output: image, Lib: testlinux.Lib(t), Key: testlinux.Key(), Level: 1, Separate: separate}); err != nil {
			t.Fatal(err)
		}
		root, err := os.Open(filepath.Join(image, manifest.Root))
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		info, err := root.Stat()
		if err != nil {
			t.Fatal(err)
		}
		list, err := squashmap.Read(root, info.Size())
		if err != nil {
			t.Fatal(err)
		}
		shared := 0
		for _, f := range list {
			if f.Fragment {
				shared++
			}
		}
		if (shared == 0) != separate {
			t.Errorf("separate %v: %d of %d files share a block", separate, shared, len(list))
		}
	}
}
