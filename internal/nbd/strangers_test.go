package nbd

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// listen serves exports on a unix socket until the test ends.
func listen(t *testing.T, exports []Export, o Options) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "nbd")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Listen(ctx, l, exports, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Listen: %v", err)
		}
	})
	return socket
}

// stranger runs a tool that somebody else wrote and returns what it printed.
func stranger(t *testing.T, wantOK bool, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed: %v", name, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if (err == nil) != wantOK {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// original writes the volume into a file, as the strangers' reference.
func original(t *testing.T, size int64) string {
	t.Helper()
	b := make([]byte, size)
	fill(b, 0)
	path := filepath.Join(t.TempDir(), "original")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNbdinfo(t *testing.T) {
	socket := listen(t, []Export{
		{Name: "root", Description: "the root disk", Backend: volume{size: 5<<20 + 512}, PreferredBlock: 128 << 10},
		{Name: "other", Backend: volume{size: 512}},
	}, Options{})
	out := stranger(t, true, "nbdinfo", "--json", "--list", "nbd+unix:///?socket="+socket)
	var info struct {
		Exports []map[string]any `json:"exports"`
	}
	if err := json.Unmarshal([]byte(out), &info); err != nil || len(info.Exports) != 2 {
		t.Fatalf("%v in %s", err, out)
	}
	for key, want := range map[string]any{
		"export-name": "root", "description": "the root disk", "export-size": float64(5<<20 + 512),
		"is_read_only": true, "can_multi_conn": true, "can_flush": true, "can_trim": false,
		"block_size_minimum": 1.0, "block_size_preferred": float64(128 << 10), "block_size_maximum": float64(32 << 20),
	} {
		if got := info.Exports[0][key]; got != want {
			t.Errorf("nbdinfo sees %s = %v, want %v", key, got, want)
		}
	}
}

func TestNbdcopy(t *testing.T) {
	const size = 37<<20 + 4096
	var now, most atomic.Int64
	socket := listen(t, []Export{{Name: "root", Backend: volume{size: size, hook: func(context.Context, int64, int) error {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		now.Add(-1)
		return nil
	}}}}, Options{})
	copied := filepath.Join(t.TempDir(), "copied")
	stranger(t, true, "nbdcopy", "--connections=4", "--requests=16", "nbd+unix:///root?socket="+socket, copied)
	stranger(t, true, "cmp", original(t, size), copied)
	t.Logf("%d reads at once", most.Load())
}

func TestQemu(t *testing.T) {
	const size = 9<<20 + 512
	socket := listen(t, []Export{{Name: "root", Backend: volume{size: size}}, {Name: "odd", Backend: volume{size: size - 13}}}, Options{})
	uri := "nbd+unix:///root?socket=" + socket
	file := original(t, size)
	stranger(t, true, "qemu-img", "compare", "-f", "raw", "-F", "raw", uri, file)
	converted := filepath.Join(t.TempDir(), "converted")
	stranger(t, true, "qemu-img", "convert", "-f", "raw", "-O", "raw", uri, converted)
	stranger(t, true, "cmp", file, converted)
	// Without structured replies qemu 7.2 loses its place at an odd end.
	odd := "nbd+unix:///odd?socket=" + socket
	stranger(t, true, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", odd, converted)
	stranger(t, true, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", odd, converted)
	stranger(t, false, "qemu-img", "compare", "-f", "raw", "-F", "raw", "nbd+unix:///nope?socket="+socket, file)
	// It sees the read-only flag, and a write is refused before it is sent.
	stranger(t, false, "qemu-io", "-f", "raw", "-c", "write 0 512", uri)
	stranger(t, true, "qemu-io", "-r", "-f", "raw", "-c", "read -v 4096 512", uri)
}

// One client's read that never ends holds up neither another client nor the
// end of the server. This one goes over TCP, as vfield --listen does.
func TestStallIsOneClientsOwn(t *testing.T) {
	const size = 1 << 20
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	stalled := make(chan struct{})
	var once sync.Once
	go func() {
		done <- Listen(ctx, l, []Export{{Backend: volume{size: size, hook: func(ctx context.Context, _ int64, length int) error {
			if length != 511 {
				return nil
			}
			once.Do(func() { close(stalled) })
			<-ctx.Done()
			return ctx.Err()
		}}}}, Options{})
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write(append(hello(3, option(7, infoData(""))), wire(request{length: 511})...))
	<-stalled
	stranger(t, true, "qemu-img", "compare", "-f", "raw", "-F", "raw", "nbd://"+l.Addr().String(), original(t, size))
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Listen: %v", err)
	}
}

func TestManyClients(t *testing.T) {
	const size = 4 << 20
	socket := listen(t, []Export{{Backend: volume{size: size}}}, Options{MaxRequests: 4, MaxBytes: 1 << 20})
	want := make([]byte, size)
	fill(want, 0)
	var clients sync.WaitGroup
	for n := range 2 * maxConnections { // half of them wait for a place
		clients.Go(func() {
			conn, err := net.Dial("unix", socket)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			conn.Write(append(hello(3, option(1, nil)), wire(request{cookie: uint64(n), offset: uint64(n) * 4096, length: 300000})...))
			got := make([]byte, 18+10+replySize+300000)
			if _, err := io.ReadFull(conn, got); err != nil {
				t.Errorf("client %d: %v", n, err)
			} else if !bytes.Equal(got[18+10+replySize:], want[n*4096:n*4096+300000]) {
				t.Errorf("client %d: wrong data", n)
			}
		})
	}
	clients.Wait()
}

func TestListenNeedsAnExport(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "nbd"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Listen(t.Context(), l, nil, Options{}); err == nil {
		t.Error("Listen served nothing at all")
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener was left open")
	}
}
