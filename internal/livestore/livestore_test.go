package livestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"viver.lan/internal/livelayer"
	"viver.lan/internal/notify"
	"viver.lan/internal/operator"
	"viver.lan/internal/runes"
)

// network is the membership as a test wants it.
type network struct {
	notify.Notifier
	mu        sync.Mutex
	overrides []operator.Override
	sources   []Source
	announced livelayer.Mark
}

func (n *network) Overrides() []operator.Override {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.overrides
}

func (n *network) Put(o operator.Override) error {
	n.mu.Lock()
	n.overrides = []operator.Override{o}
	n.mu.Unlock()
	n.Notify()
	return nil
}

func (n *network) Sources() []Source {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sources
}

func (n *network) join(s ...Source) {
	n.mu.Lock()
	n.sources = append(n.sources, s...)
	n.mu.Unlock()
	n.Notify()
}

func (n *network) Announce(_ context.Context, m livelayer.Mark) error {
	n.mu.Lock()
	n.announced = m
	n.mu.Unlock()
	n.Notify()
	return nil
}

// layer is a live layer with that text as a file.
func layer(t *testing.T, text string, before ...livelayer.Change) []byte {
	t.Helper()
	bundles, errs := runes.Load(fstest.MapFS{
		"files/rune.toml":      {Data: []byte("name = \"files\"\ndescription = \"files of the operator's\"\n")},
		"files/files/etc/motd": {Data: []byte(text)},
	})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var archive bytes.Buffer
	if err := runes.WriteTar(&archive, bundles); err != nil {
		t.Fatal(err)
	}
	data, err := livelayer.Layer{Runes: archive.Bytes(), History: append([]livelayer.Change{{What: "put /etc/motd"}}, before...)}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func pointTo(data []byte, version uint64) operator.Override {
	return operator.Override{Key: livelayer.Key, Value: livelayer.PointTo(data).String(), Sequence: version}
}

// start runs a store on a network until the end of the test or stop.
func start(t *testing.T, n *network, saved string) (s *Store, stop func()) {
	t.Helper()
	s = New(Config{Kind: LiveLayers(), Dir: filepath.Join(t.TempDir(), "live"), Saved: saved, Network: n, Changed: n.Notify, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		hedge: 5 * time.Millisecond, pause: 5 * time.Millisecond})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

// until waits for changes of the network until something holds.
func until(t *testing.T, n *network, what string, holds func() bool) {
	t.Helper()
	changed, stop := n.Watch()
	defer stop()
	late := time.After(time.Minute)
	for !holds() {
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond): // files change without notice
		case <-late:
			t.Fatalf("never: %s", what)
		}
	}
}

// has waits until the store has the layer.
func has(t *testing.T, n *network, s *Store, data []byte) {
	t.Helper()
	until(t, n, "the layer is here", func() bool {
		state := s.State()
		return state.Here && state.Pointer == livelayer.PointTo(data)
	})
	if got, err := os.ReadFile(Path(s.cfg.Dir, livelayer.PointTo(data).Digest)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("its file has %d bytes, %v", len(got), err)
	}
}

// member serves the answer at an address of its own, and is a source that says it has what
// mark is of.
func member(t *testing.T, mark livelayer.Mark, answer http.HandlerFunc) Source {
	t.Helper()
	return memberAt(t, fmt.Sprintf("127.%d.%d.%d", rand.IntN(256), rand.IntN(256), 1+rand.IntN(254)), mark, answer)
}

func memberAt(t *testing.T, host string, mark livelayer.Mark, answer http.HandlerFunc) Source {
	t.Helper()
	server := httptest.NewUnstartedServer(answer)
	server.Listener.Close()
	var err error
	if server.Listener, err = net.Listen("tcp", host+":0"); err != nil {
		t.Fatal(err)
	}
	server.Start()
	t.Cleanup(server.Close)
	return Source{netip.MustParseAddrPort(server.Listener.Addr().String()), mark}
}

// serves answers as an agent does that has the files of a directory.
func serves(dir string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f, err := Open(dir, strings.TrimPrefix(r.URL.Path, "/"+HTTPDir))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		defer f.Close()
		http.ServeContent(w, r, "", time.Time{}, f)
	}
}

func TestOwnLayer(t *testing.T) {
	n := new(network)
	s, _ := start(t, n, "")
	one := layer(t, "one")
	if err := s.Put(pointTo(one, 1)); err == nil {
		t.Error("an override is taken whose layer nobody has")
	}
	if err := s.Add(one); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(pointTo(one, 1)); err != nil {
		t.Fatal(err)
	}
	has(t, n, s, one)
	mark := livelayer.PointTo(one).Digest.Mark()
	until(t, n, "it is announced", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.announced == mark })
	// Taken back.
	if err := s.Put(operator.Override{Key: livelayer.Key, Sequence: 2}); err != nil {
		t.Fatal(err)
	}
	until(t, n, "there is none", func() bool { return s.State() == State{Version: 2, Here: true} })
	if err := s.Put(operator.Override{Key: livelayer.Key, Value: "nonsense", Sequence: 3}); err == nil {
		t.Error("an override is taken that points to nothing")
	}
	_ = n.Put(operator.Override{Key: livelayer.Key, Value: "of-a-later-version", Sequence: 4}) // by another node
	until(t, n, "it is not understood", func() bool { return s.State().Reason != "" && !s.State().Here })
}

func TestRefusedLayers(t *testing.T) {
	n := new(network)
	s, _ := start(t, n, "")
	encode := func(l livelayer.Layer) []byte {
		data, err := l.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	good, _ := livelayer.Decode(layer(t, "x"))
	broken := good
	broken.Runes = bytes.Replace(good.Runes, []byte("description ="), []byte("descripxion ="), 1)
	for what, data := range map[string][]byte{
		"nothing":      {},
		"nonsense":     []byte("nonsense"),
		"too large":    make([]byte, livelayer.MaxSize+1),
		"no archive":   encode(livelayer.Layer{}),
		"a cut one":    encode(livelayer.Layer{Runes: good.Runes[:1024]}),
		"a wrong rune": encode(broken),
	} {
		if err := s.Add(data); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if left, _ := os.ReadDir(s.cfg.Dir); len(left) > 0 {
		t.Errorf("of what is refused stays %v", left)
	}
}

// Members that lie, are slow or have nothing cost time only.
func TestFetch(t *testing.T) {
	data := layer(t, strings.Repeat("text ", 10000))
	mark := livelayer.PointTo(data).Digest.Mark()
	end := make(chan struct{})
	t.Cleanup(func() { close(end) }) // before the servers wait for their answers
	bad := map[string]http.HandlerFunc{
		"nothing":     http.NotFound,
		"other bytes": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(bytes.Repeat([]byte{1}, len(data))) },
		"cut":         func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data[:len(data)-1]) },
		"more":        func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(append(bytes.Clone(data), 0)) },
		"breaks": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, _ = w.Write(data[:100])
		},
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		},
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		},
		"silent": func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-end:
			case <-r.Context().Done():
			}
		},
	}
	for what, answer := range bad {
		source := member(t, mark, answer)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if got, err := download(ctx, source.Addr, livelayer.PointTo(data).Digest, int64(len(data))); err == nil {
			t.Errorf("%s: %d bytes are taken", what, len(got))
		}
		cancel()
	}
	n := new(network)
	s, _ := start(t, n, "")
	for _, answer := range bad {
		n.join(member(t, mark, answer), member(t, livelayer.Mark{}, answer))
	}
	_ = n.Put(pointTo(data, 1))
	until(t, n, "they were asked", func() bool { return strings.Contains(s.State().Reason, "127.") })
	if state := s.State(); state.Here {
		t.Fatalf("it has something: %+v", state)
	}
	// One that comes later and has it.
	dir := t.TempDir()
	if err := os.WriteFile(Path(dir, livelayer.PointTo(data).Digest), data, 0o600); err != nil {
		t.Fatal(err)
	}
	n.join(member(t, mark, serves(dir)))
	has(t, n, s, data)
}

// A machine that is many members takes one download at a time, and one for all of them
// before others are asked.
func TestManyMembersOfOneAddress(t *testing.T) {
	data, old := layer(t, "one"), layer(t, "before")
	dir := t.TempDir()
	for _, layer := range [][]byte{data, old} {
		if err := os.WriteFile(Path(dir, livelayer.PointTo(layer).Digest), layer, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for what, get := range map[string]func(*network, *Store){
		"the one in use": func(n *network, s *Store) {
			_ = n.Put(pointTo(data, 1))
			has(t, n, s, data)
		},
		"an earlier one": func(_ *network, s *Store) {
			if got, err := s.Get(t.Context(), livelayer.PointTo(old).Digest); err != nil || !bytes.Equal(got, old) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		},
	} {
		n := new(network)
		var asked atomic.Int32
		for _, data := range [][]byte{data, old} {
			for range 20 {
				n.join(memberAt(t, "127.0.0.1", livelayer.PointTo(data).Digest.Mark(), func(_ http.ResponseWriter, r *http.Request) {
					asked.Add(1)
					<-r.Context().Done()
				}))
			}
		}
		n.join(member(t, livelayer.Mark{}, serves(dir)))
		s, stop := start(t, n, "")
		get(n, s)
		stop()
		if asked.Load() != 1 {
			t.Errorf("%s: the liar was asked %d times, want once", what, asked.Load())
		}
	}
}

// A fetch is given up when another layer is wanted.
func TestReplacedWhileFetched(t *testing.T) {
	n := new(network)
	s, _ := start(t, n, "")
	one, two := layer(t, "one"), layer(t, "two")
	_ = n.Put(pointTo(one, 1))
	until(t, n, "the first is wanted", func() bool { return s.State().Pointer == livelayer.PointTo(one) })
	if err := s.Add(two); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(pointTo(two, 2)); err != nil {
		t.Fatal(err)
	}
	has(t, n, s, two)
}

// What nobody has any more, its owner gives this node, and points to it again.
func TestSentAgain(t *testing.T) {
	n := new(network)
	s, _ := start(t, n, "")
	one := layer(t, "one")
	_ = n.Put(pointTo(one, 1))
	until(t, n, "it is wanted", func() bool { return s.State().Pointer == livelayer.PointTo(one) })
	if err := s.Add(one); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(pointTo(one, 2)); err != nil {
		t.Fatal(err)
	}
	has(t, n, s, one)
	if got := s.State().Version; got != 2 {
		t.Errorf("version %d, want 2", got)
	}
}

func TestGet(t *testing.T) {
	n := new(network)
	s, _ := start(t, n, "")
	one, two := layer(t, "one"), layer(t, "two")
	if err := s.Add(one); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(Path(dir, livelayer.PointTo(two).Digest), two, 0o600); err != nil {
		t.Fatal(err)
	}
	n.join(member(t, livelayer.Mark{}, http.NotFound), member(t, livelayer.Mark{}, serves(dir)))
	for _, want := range [][]byte{one, two} {
		if got, err := s.Get(t.Context(), livelayer.PointTo(want).Digest); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	if _, err := s.Get(t.Context(), livelayer.Digest{}); !errors.Is(err, ErrNotHere) {
		t.Errorf("a layer that nobody has: %v", err)
	}
}

// A disk brings the layer back after all machines were off, if it is still the same.
func TestSavedData(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "viver-data")
	saved := filepath.Join(disk, "live")
	n := new(network)
	s, stop := start(t, n, saved)
	one := layer(t, "one")
	two := layer(t, "two", livelayer.Change{What: "one", Digest: livelayer.PointTo(one).Digest})
	for i, data := range [][]byte{one, two} {
		if err := errors.Join(s.Add(data), s.Put(pointTo(data, uint64(i+1)))); err != nil {
			t.Fatal(err)
		}
		has(t, n, s, data)
	}
	if err := os.Mkdir(disk, 0o755); err != nil { // it appears late
		t.Fatal(err)
	}
	until(t, n, "both are on the disk", func() bool { list, _ := os.ReadDir(saved); return len(list) == 2 })
	stop()

	again := &network{overrides: []operator.Override{pointTo(two, 2)}}
	s, stop = start(t, again, saved)
	has(t, again, s, two)
	stop()

	file := Path(saved, livelayer.PointTo(two).Digest)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, two, 0o600); err != nil {
		t.Fatal(err)
	}
	for what, spoil := range map[string]func() error{
		"cut":     func() error { return os.Truncate(file, 100) },
		"changed": func() error { return os.WriteFile(file, bytes.ToUpper(two), 0o600) },
		"a link":  func() error { return errors.Join(os.Remove(file), os.Symlink(outside, file)) },
		"gone":    func() error { return os.Remove(file) },
	} {
		if err := errors.Join(os.RemoveAll(file), os.WriteFile(file, two, 0o600), spoil()); err != nil {
			t.Fatal(err)
		}
		if s := New(Config{Kind: LiveLayers(), Dir: t.TempDir(), Saved: saved, Log: slog.New(slog.DiscardHandler)}); s.local(livelayer.PointTo(two)) {
			t.Errorf("%s: it is used", what)
		}
	}
}

// Layers for a rollback stay, others go, and large ones go first.
func TestPrune(t *testing.T) {
	n := new(network)
	s, _ := start(t, n, "")
	put := func(data []byte, version uint64) {
		t.Helper()
		if err := errors.Join(s.Add(data), s.Put(pointTo(data, version))); err != nil {
			t.Fatal(err)
		}
		has(t, n, s, data)
	}
	names := func() string {
		var list []string
		entries, _ := os.ReadDir(s.cfg.Dir)
		for _, e := range entries {
			list = append(list, e.Name()[:4])
		}
		return strings.Join(list, " ")
	}
	change := func(data []byte) livelayer.Change { return livelayer.Change{Digest: livelayer.PointTo(data).Digest} }
	one, other := layer(t, "one"), layer(t, "other")
	put(one, 1)
	put(other, 2) // of an operator who did not know the first
	until(t, n, "the first is gone", func() bool { return names() == livelayer.PointTo(other).Digest.String()[:4] })
	large := layer(t, strings.Repeat("x", 6<<20), change(other))
	put(large, 3)
	larger := layer(t, strings.Repeat("y", 7<<20), change(large), change(other))
	put(larger, 4)
	until(t, n, "three are there", func() bool { return len(strings.Fields(names())) == 3 })
	put(layer(t, strings.Repeat("z", 5<<20), change(larger), change(large), change(other)), 5)
	until(t, n, "there is no room for one of them", func() bool {
		return len(strings.Fields(names())) == 3 && !strings.Contains(names(), livelayer.PointTo(large).Digest.String()[:4])
	})
}

func TestCurrent(t *testing.T) {
	p := livelayer.PointTo([]byte("layer"))
	for _, test := range []struct {
		list    []operator.Override
		want    livelayer.Pointer
		version uint64
		ok      bool
	}{
		{nil, livelayer.Pointer{}, 0, true},
		{[]operator.Override{{Key: "name/x", Value: "y", Sequence: 9}, {Key: livelayer.Key, Value: p.String(), Sequence: 4}}, p, 4, true},
		{[]operator.Override{{Key: livelayer.Key, Sequence: 5}}, livelayer.Pointer{}, 5, true}, // taken back
		{[]operator.Override{{Key: livelayer.Key, Value: "of-a-later-version", Sequence: 6}}, livelayer.Pointer{}, 6, false},
	} {
		if got, version, err := Current(test.list, livelayer.Key); got != test.want || version != test.version || (err == nil) != test.ok {
			t.Errorf("%v: %s, version %d, %v", test.list, got, version, err)
		}
	}
}
