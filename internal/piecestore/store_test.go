package piecestore

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"viver.lan/internal/metainfo"
	"viver.lan/internal/netbed/netbedtest"
)

const pieceLen = 16 << 10

// newImage returns an image of n pieces, the last one short, and its bytes.
func newImage(t testing.TB, n int) (*metainfo.Info, []byte) {
	t.Helper()
	data := make([]byte, n*pieceLen-100)
	rand.NewChaCha8([32]byte{7}).Read(data)
	p := filepath.Join(t.TempDir(), "root")
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, info, err := metainfo.Create("x", []metainfo.Source{{Name: "root.squashfs", Path: p}}, pieceLen, nil)
	if err != nil {
		t.Fatal(err)
	}
	return info, data
}

func piecesOf(info *metainfo.Info, data []byte, i int) []byte {
	off := info.PieceOffset(i)
	return data[off : off+info.PieceSize(i)]
}

func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t testing.TB, s *Store, data []byte, i int) []int {
	t.Helper()
	p := piecesOf(s.info, data, i)
	evicted, err := s.Put(i, p[:10], p[10:])
	if err != nil {
		t.Fatal(err)
	}
	return evicted
}

func check(t testing.TB, s *Store, data []byte, i int) {
	t.Helper()
	ref, ok := s.Acquire(i)
	if !ok {
		t.Errorf("piece %d is not held", i)
		return
	}
	defer ref.Release()
	got := make([]byte, s.info.PieceSize(i))
	if err := ref.ReadAt(got, 0); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(got, piecesOf(s.info, data, i)) {
		t.Errorf("piece %d has wrong bytes", i)
	}
}

// blocks returns how many bytes the file's data really occupies. A disk file
// system may add two blocks of its own for the file's map.
func blocks(t testing.TB, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks*512 - 2*4096
}

func TestPutAndRead(t *testing.T) {
	info, data := newImage(t, 5)
	s := open(t, Config{Path: filepath.Join(t.TempDir(), "p"), Info: info})
	for _, i := range []int{4, 0, 2} {
		if ev := put(t, s, data, i); ev != nil {
			t.Errorf("evicted %v", ev)
		}
		check(t, s, data, i)
	}
	put(t, s, data, 4)
	if s.Count() != 3 || !slices.Equal(s.Held(), []int{0, 2, 4}) || s.Has(1) {
		t.Errorf("held %v, count %d", s.Held(), s.Count())
	}
	if _, err := s.Put(1, piecesOf(info, data, 1)[:50]); err == nil {
		t.Error("a short piece was kept")
	}
	if s.Has(1) || s.Used() != 2*pieceLen+info.PieceSize(4) {
		t.Errorf("after a failed put: has %v, used %d", s.Has(1), s.Used())
	}
}

func TestBudgetEvictsOldestUnpinned(t *testing.T) {
	info, data := newImage(t, 10)
	path := filepath.Join(t.TempDir(), "p")
	s := open(t, Config{Path: path, Info: info, Budget: 3*pieceLen + 5})
	s.Pin(0)
	put(t, s, data, 0)
	put(t, s, data, 1)
	put(t, s, data, 2)
	check(t, s, data, 1) // 2 is now the oldest
	if ev := put(t, s, data, 3); !slices.Equal(ev, []int{2}) {
		t.Errorf("evicted %v, want 2", ev)
	}
	ref, _ := s.Acquire(1)
	if ev := put(t, s, data, 4); !slices.Equal(ev, []int{3}) {
		t.Errorf("evicted %v, want 3: 0 is pinned, 1 in use", ev)
	}
	s.Pin(4)
	if _, err := s.Put(5, piecesOf(info, data, 5)); !errors.Is(err, ErrFull) {
		t.Errorf("put into a full store: %v", err)
	}
	got := make([]byte, pieceLen)
	if err := ref.ReadAt(got, 0); err != nil || !bytes.Equal(got, piecesOf(info, data, 1)) {
		t.Error("a piece in use lost its bytes", err)
	}
	ref.Release()
	s.Unpin(4)
	put(t, s, data, 5)
	if b := blocks(t, path); b > s.Budget() {
		t.Errorf("the file occupies %d bytes, the budget is %d", b, s.Budget())
	}
	if err := s.Drop(0); err != nil || s.Has(0) {
		t.Errorf("drop: %v", err)
	}
}

func TestRestartTrustsNothing(t *testing.T) {
	info, data := newImage(t, 6)
	path := filepath.Join(t.TempDir(), "p")
	s, err := Open(Config{Path: path, Info: info})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 2, 3, 5} {
		put(t, s, data, i)
	}
	if _, err := Open(Config{Path: path, Info: info}); err == nil {
		t.Fatal("two stores on one file")
	}
	s.Close()
	// A bit flips in piece 2, a write of piece 4 was torn.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte{^data[info.PieceOffset(2)+77]}, info.PieceOffset(2)+77)
	f.WriteAt(piecesOf(info, data, 4)[:5000], info.PieceOffset(4))
	f.Close()

	s = open(t, Config{Path: path, Info: info})
	if s.Count() != 0 {
		t.Fatal("pieces are trusted before they are hashed")
	}
	for _, i := range s.Candidates() {
		s.Recheck(i)
	}
	if !slices.Equal(s.Held(), []int{0, 3, 5}) {
		t.Errorf("held %v after the restart, want 0, 3, 5", s.Held())
	}
	for _, i := range s.Held() {
		check(t, s, data, i)
	}
	put(t, s, data, 2)
	check(t, s, data, 2)
}

func TestRestartWithSmallerBudget(t *testing.T) {
	info, data := newImage(t, 6)
	path := filepath.Join(t.TempDir(), "p")
	s, err := Open(Config{Path: path, Info: info})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		put(t, s, data, i)
	}
	s.Close()
	s = open(t, Config{Path: path, Info: info, Budget: 2 * pieceLen})
	if c := s.Candidates(); !slices.Equal(c, []int{0, 1}) {
		t.Errorf("candidates %v", c)
	}
	if b := blocks(t, path); b > s.Budget() {
		t.Errorf("the file occupies %d bytes, the budget is %d", b, s.Budget())
	}
	// New pieces may push unchecked ones out.
	put(t, s, data, 4)
	put(t, s, data, 5)
	for _, i := range s.Candidates() {
		s.Recheck(i)
	}
	if !slices.Equal(s.Held(), []int{4, 5}) {
		t.Errorf("held %v", s.Held())
	}
}

func TestOpenRefuses(t *testing.T) {
	info, _ := newImage(t, 2)
	dir := t.TempDir()
	if err := os.Symlink("/dev/null", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"directory":    {Path: dir, Info: info},
		"symlink":      {Path: filepath.Join(dir, "link"), Info: info},
		"device":       {Path: "/dev/null", Info: info},
		"tiny budget":  {Path: filepath.Join(dir, "p"), Info: info, Budget: 100},
		"no directory": {Path: filepath.Join(dir, "no", "p"), Info: info},
	} {
		if s, err := Open(cfg); err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	info, data := newImage(t, 32)
	s := open(t, Config{Path: filepath.Join(t.TempDir(), "p"), Info: info, Budget: 8 * pieceLen})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			buf := make([]byte, pieceLen)
			for range 500 {
				i := rng.IntN(32)
				if ref, ok := s.Acquire(i); ok {
					b := buf[:info.PieceSize(i)]
					if err := ref.ReadAt(b, 0); err != nil || !bytes.Equal(b, piecesOf(info, data, i)) {
						t.Errorf("piece %d: wrong bytes (%v)", i, err)
					}
					ref.Release()
				} else if _, err := s.Put(i, piecesOf(info, data, i)); err != nil && !errors.Is(err, ErrFull) {
					t.Error(err)
				}
				if rng.IntN(20) == 0 {
					if err := s.Drop(rng.IntN(32)); err != nil {
						t.Error(err)
					}
				}
				if u := s.Used(); u > s.Budget() {
					t.Errorf("used %d of %d", u, s.Budget())
				}
			}
		})
	}
	wg.Wait()
	var sum int64
	for _, i := range s.Held() {
		sum += info.PieceSize(i)
	}
	if sum != s.Used() || len(s.Held()) != s.Count() {
		t.Errorf("held %d bytes, accounted %d", sum, s.Used())
	}
}

// TestNetnsFileSystemFull fills a small tmpfs: the error says so, nothing is
// claimed that is not there, and the store works again when there is room.
func TestNetnsFileSystemFull(t *testing.T) {
	if !netbedtest.Enter(t) {
		return
	}
	info, data := newImage(t, 10)
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	s := open(t, Config{Path: filepath.Join(dir, "p"), Info: info})
	var err error
	n := 0
	for ; n < 10 && err == nil; n++ {
		_, err = s.Put(n, piecesOf(info, data, n))
	}
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "full") {
		t.Fatalf("after %d pieces: %v", n, err)
	}
	if s.Count() != n-1 || s.Has(n-1) {
		t.Errorf("count %d after %d puts", s.Count(), n)
	}
	for _, i := range s.Held() {
		check(t, s, data, i)
	}
	if s.Budget() != s.Used() {
		t.Errorf("the budget is %d with %d used, and no room", s.Budget(), s.Used())
	}
	if ev := put(t, s, data, 9); !slices.Equal(ev, []int{0}) {
		t.Errorf("evicted %v, want 0: no more is asked of the file system than it has", ev)
	}
	check(t, s, data, 9)
}

// All that is held is hashed again when the file is not trusted any more, also what
// somebody reads meanwhile, who goes on reading what there is.
func TestDistrust(t *testing.T) {
	info, data := newImage(t, 3)
	path := filepath.Join(t.TempDir(), "p")
	s := open(t, Config{Path: path, Info: info})
	for i := range 3 {
		put(t, s, data, i)
	}
	reader, _ := s.Acquire(1)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("lost"), info.PieceOffset(1)); err != nil {
		t.Fatal(err)
	}
	s.Distrust()
	if _, ok := s.Acquire(0); ok || s.Count() != 0 || !slices.Equal(s.Candidates(), []int{0, 1, 2}) {
		t.Errorf("%d are held, candidates %v", s.Count(), s.Candidates())
	}
	for i := range 3 {
		if ok, err := s.Recheck(i); ok != (i != 1) || (err == nil) != ok {
			t.Errorf("piece %d: %v, %v", i, ok, err)
		}
	}
	reads := func(want string) {
		got := make([]byte, len(want))
		if err := reader.ReadAt(got, 0); err != nil || string(got) != want {
			t.Errorf("the reader of the wrong piece gets %q, %v, want %q", got, err, want)
		}
	}
	reads("lost")
	put(t, s, data, 1)
	reads(string(piecesOf(info, data, 1)))
	reader.Release()
	for i := range 3 {
		check(t, s, data, i)
	}
	if s.Used() != info.Size {
		t.Errorf("%d bytes are used, want %d", s.Used(), info.Size)
	}
}
