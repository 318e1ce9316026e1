package metainfo

import (
	"bytes"
	"crypto/sha1"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/anacrolix/torrent/bencode"
	ametainfo "github.com/anacrolix/torrent/metainfo"
)

// image writes files of random bytes and returns them as sources, with their
// concatenation.
func image(t testing.TB, sizes map[string]int, order ...string) ([]Source, []byte) {
	t.Helper()
	dir := t.TempDir()
	rng := rand.NewChaCha8([32]byte{1})
	var all []byte
	var files []Source
	for _, name := range order {
		b := make([]byte, sizes[name])
		rng.Read(b)
		p := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
		files = append(files, Source{Name: name, Path: p})
	}
	return files, all
}

func TestCreateAndParse(t *testing.T) {
	files, all := image(t, map[string]int{"root.squashfs": 300_001, "vmlinuz": 70_000, "boot/grubx64.efi": 5}, "root.squashfs", "vmlinuz", "boot/grubx64.efi")
	var last int64
	torrent, info, err := Create("tiny", files, 64<<10, func(n int64) { last = n })
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(torrent)
	if err != nil {
		t.Fatal(err)
	}
	if again.Infohash != info.Infohash || info.Size != int64(len(all)) || last != info.Size {
		t.Fatalf("sizes: info %d, progress %d, want %d", info.Size, last, len(all))
	}
	f, ok := info.Lookup("boot/grubx64.efi")
	if !ok || f.Offset != 370_001 || f.Size != 5 {
		t.Errorf("Lookup = %+v, %v", f, ok)
	}
	var sum int64
	for i := range info.NumPieces() {
		off := info.PieceOffset(i)
		data := all[off : off+info.PieceSize(i)]
		if !info.Verify(i, data[:1], data[1:]) {
			t.Errorf("piece %d does not verify", i)
		}
		if info.PieceHash(i) != sha1.Sum(data) {
			t.Errorf("piece %d: wrong hash", i)
		}
		sum += info.PieceSize(i)
	}
	if sum != info.Size {
		t.Errorf("pieces add up to %d of %d", sum, info.Size)
	}
	if second, _, err := Create("tiny", files, 64<<10, nil); err != nil || !bytes.Equal(second, torrent) {
		t.Errorf("the same files gave another metainfo (%v)", err)
	}
}

// aria2c is the independent judge of what Create writes.
func TestAria2ReadsMetainfo(t *testing.T) {
	aria2c, err := exec.LookPath("aria2c")
	if err != nil {
		t.Skip("aria2c is not installed")
	}
	files, _ := image(t, map[string]int{"root.squashfs": 200_000, "boot/shimx64.efi": 1000}, "root.squashfs", "boot/shimx64.efi")
	torrent, info, err := Create("tiny", files, 128<<10, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(t.TempDir(), "image.torrent")
	if err := os.WriteFile(p, torrent, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(aria2c, "--show-files", "--no-conf", p).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{info.Infohash.String(), "/tiny/root.squashfs", "/tiny/boot/shimx64.efi"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("aria2c does not say %q:\n%s", want, out)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := ametainfo.Info{Name: "x", PieceLength: 1 << 17, Pieces: make([]byte, 20),
		Files: []ametainfo.FileInfo{{Path: []string{"root.squashfs"}, Length: 100}}}
	for name, change := range map[string]func(*ametainfo.Info){
		"name leaves":       func(i *ametainfo.Info) { i.Name = "../x" },
		"no name":           func(i *ametainfo.Info) { i.Name = "" },
		"path leaves":       func(i *ametainfo.Info) { i.Files[0].Path = []string{"..", "etc"} },
		"path with a slash": func(i *ametainfo.Info) { i.Files[0].Path = []string{"a/../../b"} },
		"empty path":        func(i *ametainfo.Info) { i.Files[0].Path = nil },
		"piece length":      func(i *ametainfo.Info) { i.PieceLength = 100_000 },
		"zero piece length": func(i *ametainfo.Info) { i.PieceLength = 0 },
		"hashes too short":  func(i *ametainfo.Info) { i.Pieces = i.Pieces[:19] },
		"hashes too many":   func(i *ametainfo.Info) { i.Pieces = make([]byte, 40) },
		"negative file":     func(i *ametainfo.Info) { i.Files[0].Length = -1 },
		"huge file":         func(i *ametainfo.Info) { i.Files[0].Length = 1<<63 - 1 },
		"sizes overflow": func(i *ametainfo.Info) {
			i.Files = append(i.Files, ametainfo.FileInfo{Path: []string{"y"}, Length: 1<<63 - 1})
		},
		"no files":           func(i *ametainfo.Info) { i.Files = nil },
		"single file length": func(i *ametainfo.Info) { i.Files = nil; i.Length = -5 },
	} {
		t.Run(name, func(t *testing.T) {
			raw := good
			raw.Files = append([]ametainfo.FileInfo(nil), good.Files...)
			change(&raw)
			info, err := bencode.Marshal(raw)
			if err != nil {
				t.Fatal(err)
			}
			torrent, err := bencode.Marshal(ametainfo.MetaInfo{InfoBytes: info})
			if err != nil {
				t.Fatal(err)
			}
			if in, err := Parse(torrent); err == nil {
				t.Errorf("accepted: %+v", in)
			}
		})
	}
}

func TestUnmarshalRefuses(t *testing.T) {
	for _, s := range []string{
		"", "i", "ie", "i-e", "i01e", "i-0e", "-1:", "5:abc", "05:abcde", "d1:a", "l", "le1", "di1ei2ee", "i99999999999999999999e",
		strings.Repeat("l", 1<<20), strings.Repeat("d1:a", 1<<10), "99999999999999999999:x", "e", "x",
	} {
		var v any
		if err := Unmarshal([]byte(s), &v); err == nil {
			t.Errorf("%.20q accepted as %v", s, v)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, _ := image(f, map[string]int{"root.squashfs": 200_000, "vmlinuz": 7}, "root.squashfs", "vmlinuz")
	torrent, _, err := Create("tiny", files, 128<<10, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(torrent)
	f.Add([]byte("d4:infod6:lengthi5e4:name1:x12:piece lengthi16384e6:pieces20:01234567890123456789ee"))
	f.Add([]byte("d4:info-1:e"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in, err := Parse(data)
		if err != nil {
			return
		}
		var sum int64
		for i := range in.NumPieces() {
			if in.PieceSize(i) <= 0 || in.PieceSize(i) > in.PieceLength {
				t.Fatalf("piece %d has %d bytes", i, in.PieceSize(i))
			}
			sum += in.PieceSize(i)
		}
		if sum != in.Size {
			t.Fatalf("pieces add up to %d of %d", sum, in.Size)
		}
	})
}

// TestShared has pieces at other places, twice, in one of the two only, and a short one.
func TestShared(t *testing.T) {
	const piece = MinPieceLength
	info := func(letters string, rest int) *Info {
		t.Helper()
		var all []byte
		for i, c := range letters {
			n := piece
			if i == len(letters)-1 {
				n = rest
			}
			all = append(all, bytes.Repeat([]byte{byte(c)}, n)...)
		}
		name := filepath.Join(t.TempDir(), "root.squashfs")
		if err := os.WriteFile(name, all, 0o600); err != nil {
			t.Fatal(err)
		}
		_, in, err := Create("x", []Source{{Name: "root.squashfs", Path: name}}, piece, nil)
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	for _, c := range []struct {
		fresh, old         string
		restFresh, restOld int
		want               []int
		missing            int64
	}{
		{"abc", "abc", 5, 5, []int{0, 1, 2}, 0},
		{"xcba", "abbc", piece, piece, []int{-1, 3, 1, 0}, piece},
		{"aab", "a", piece, piece, []int{0, 0, -1}, piece},
		{"ab", "ab", 5, 6, []int{0, -1}, 5},
	} {
		fresh, old := info(c.fresh, c.restFresh), info(c.old, c.restOld)
		if got := fresh.Shared(old); !slices.Equal(got, c.want) || fresh.Missing(old) != c.missing {
			t.Errorf("%s onto %s: %v, %d bytes missing; want %v, %d", c.fresh, c.old, got, fresh.Missing(old), c.want, c.missing)
		}
	}
	// A metainfo that says that a short piece has the bytes of a whole one.
	lie := *info("ab", 5)
	lie.hashes = slices.Concat(lie.hashes[:20], lie.hashes[:20])
	if got := lie.Shared(info("a", piece)); !slices.Equal(got, []int{0, -1}) {
		t.Errorf("pieces of different sizes: %v", got)
	}
}

// The usual image has short pieces; a larger one has fewer, longer ones.
func TestPieceLengthFollowsTheSize(t *testing.T) {
	const gib = 1 << 30
	for size, want := range map[int64]int64{
		1: 128 << 10, 8 * gib: 128 << 10, 8*gib + 1: 256 << 10, 9 * gib: 256 << 10, 20 * gib: 512 << 10,
		64 * gib: 1 << 20, math.MaxInt64: MaxPieceLength,
	} {
		if got := PieceLengthFor(size); got != want {
			t.Errorf("%d bytes: pieces of %d, want %d", size, got, want)
		}
	}
}
