package blockdev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/sleep"
)

// fakeDriver behaves as the kernel's NBD driver does towards sockets: it keeps
// its own reference, knows a fixed number of slots, and drops a socket offered
// to it while none of them is dead, reporting success.
type fakeDriver struct {
	t  *testing.T
	mu sync.Mutex

	up      bool
	request connectRequest
	slots   []net.Conn // nil when dead
	taken   chan int   // slot of each socket taken by reconfigure
	// refusals is how many offers are dropped before a death is noticed.
	refusals int
	offers   int
}

func newFake(t *testing.T) *fakeDriver {
	k := &fakeDriver{t: t, taken: make(chan int, 100)}
	t.Cleanup(func() { k.disconnect(0) })
	return k
}

// adopt takes a reference to a socket of ours.
func (k *fakeDriver) adopt(fd int) net.Conn {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		k.t.Fatal(err)
	}
	f := os.NewFile(uintptr(dup), "kernel")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		k.t.Fatal(err)
	}
	return conn
}

func (k *fakeDriver) connected(int) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.up, nil
}

func (k *fakeDriver) connect(r connectRequest) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.up {
		return unix.EBUSY
	}
	k.up, k.request = true, r
	for _, fd := range r.sockets {
		k.slots = append(k.slots, k.adopt(fd))
	}
	return nil
}

func (k *fakeDriver) reconfigure(r reconfigureRequest) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.offers++
	if !k.up || r.identity != k.request.identity {
		return fmt.Errorf("reconfigure: %w", unix.EINVAL)
	}
	if k.refusals > 0 {
		k.refusals--
		return nil
	}
	for i, conn := range k.slots {
		if conn == nil {
			k.slots[i] = k.adopt(r.sockets[0])
			k.taken <- i
			return nil
		}
	}
	return nil
}

func (k *fakeDriver) disconnect(int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, conn := range k.slots {
		if conn != nil {
			conn.Close()
		}
	}
	k.up, k.slots = false, nil
	return nil
}

// kill ends the connection in a slot from the kernel's side.
func (k *fakeDriver) kill(slot int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.slots[slot].Close()
	k.slots[slot] = nil
}

// ask sends a word through a slot's connection and expects the server's echo.
func (k *fakeDriver) ask(slot int) {
	k.t.Helper()
	k.mu.Lock()
	conn := k.slots[slot]
	k.mu.Unlock()
	var echo [5]byte
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	conn.Write([]byte("hello"))
	if _, err := io.ReadFull(conn, echo[:]); err != nil || string(echo[:]) != "hello" {
		k.t.Errorf("connection %d answers %q, %v", slot, echo, err)
	}
}

// echo serves a connection until it ends.
func echo(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	_, err := io.Copy(conn, conn)
	return err
}

// sysfs lays out the files of a device of that many bytes.
func sysfs(t *testing.T, size int64, identity string) (root string) {
	root = t.TempDir()
	dir := filepath.Join(root, "sys/block/nbd0")
	files := map[string]string{"size": fmt.Sprintln(size / 512), "queue/read_ahead_kb": "128\n", "queue/max_sectors_kb": "128\n"}
	if identity != "" {
		files["backend"] = identity + "\n"
	}
	for file, text := range files {
		path := filepath.Join(dir, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// setting reads a setting of the device's queue.
func setting(t *testing.T, root, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "sys/block/nbd0/queue", file))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// awaitTuned waits for the settings, which are made while the device runs.
func awaitTuned(t *testing.T, root string) {
	t.Helper()
	for file, want := range map[string]string{"read_ahead_kb": "16", "max_sectors_kb": "512"} {
		for setting(t, root, file) != want {
			if err := sleep.For(t.Context(), time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// start attaches and runs; wait returns what Run returned.
func start(t *testing.T, ctx context.Context, c Config, k *fakeDriver) (*Device, func() error) {
	t.Helper()
	d, err := attach(ctx, c, k)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	return d, func() error { return <-done }
}

func TestAttach(t *testing.T) {
	k := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	root := sysfs(t, 1<<20, "")
	d, wait := start(t, ctx, Config{Size: 1 << 20, Connections: 3, Identity: "cafe", Timeout: 1500 * time.Millisecond, Serve: echo, Root: root}, k)
	for slot := range 3 {
		k.ask(slot)
	}
	k.request.sockets = nil
	if want := (connectRequest{size: 1 << 20, blockSize: 4096, timeout: 1500 * time.Millisecond, deadTimeout: 20 * 24 * time.Hour, identity: "cafe"}); !reflect.DeepEqual(k.request, want) {
		t.Errorf("connect request %+v, want %+v", k.request, want)
	}
	if d.Path() != "/dev/nbd0" || d.Again() {
		t.Errorf("path %s, again %v", d.Path(), d.Again())
	}
	awaitTuned(t, root)
	cancel()
	if err := wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v", err)
	}
	if up, _ := k.connected(0); !up {
		t.Error("the device is gone with its daemon")
	}
}

func TestAttachRefuses(t *testing.T) {
	for _, c := range []struct {
		name      string
		config    Config
		connected *connectRequest
		root      string
		want      string
	}{
		{"no server", Config{Size: 4096}, nil, "", "no server"},
		{"odd size", Config{Size: 4097, Serve: echo}, nil, "", "multiple of 512"},
		{"no size", Config{Serve: echo}, nil, "", "multiple of 512"},
		{"negative index", Config{Index: -1, Size: 4096, Serve: echo}, nil, "", "index is -1"},
		{"another size", Config{Size: 8192, Serve: echo}, &connectRequest{}, sysfs(t, 4096, ""), "4096 bytes, ours has 8192"},
		{"another identity", Config{Size: 4096, Identity: "cafe", Serve: echo}, &connectRequest{}, sysfs(t, 4096, "babe"), `"babe", ours is "cafe"`},
		{"no sysfs", Config{Size: 4096, Serve: echo}, &connectRequest{}, t.TempDir(), "cannot be read"},
		{"identity unknown to sysfs", Config{Size: 4096, Identity: "cafe", Serve: echo}, &connectRequest{identity: "babe"}, sysfs(t, 4096, ""), "invalid argument"},
	} {
		k := newFake(t)
		if c.connected != nil {
			k.connect(*c.connected)
		}
		c.config.Root = c.root
		if _, err := attach(t.Context(), c.config, k); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want something with %q", c.name, err, c.want)
		}
	}
}

func TestEveryEndedConnectionIsReplaced(t *testing.T) {
	k := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, wait := start(t, ctx, Config{Size: 4096, Connections: 2, Serve: echo, Root: sysfs(t, 4096, "")}, k)
	for i := range 10 {
		slot := i % 2
		k.kill(slot)
		k.ask(1 - slot) // meanwhile the other serves
		if got := <-k.taken; got != slot {
			t.Fatalf("slot %d was refilled, want %d", got, slot)
		}
		k.ask(slot)
	}
	cancel()
	wait()
}

func TestDeathNoticedLate(t *testing.T) {
	// The kernel drops five sockets with "success" before it sees that one of
	// its own is dead.
	k := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, wait := start(t, ctx, Config{Size: 4096, Connections: 1, Serve: echo, Root: sysfs(t, 4096, "")}, k)
	k.mu.Lock()
	k.refusals = 5
	k.mu.Unlock()
	k.kill(0)
	<-k.taken
	k.ask(0)
	cancel()
	wait()
	if k.offers != 6 {
		t.Errorf("%d offers, want 6", k.offers)
	}
}

func TestTakeOver(t *testing.T) {
	for _, connections := range []int{1, 2, 5} { // the dead daemon had 2
		t.Run(fmt.Sprint(connections), func(t *testing.T) {
			k := newFake(t)
			root := sysfs(t, 4096, "cafe")
			c := Config{Size: 4096, Identity: "cafe", Connections: 2, Serve: echo, Root: root}
			first, kill := context.WithCancel(t.Context())
			_, wait := start(t, first, c, k)
			awaitTuned(t, root)
			kill()
			wait()
			k.kill(0)
			k.kill(1)
			os.WriteFile(filepath.Join(root, "sys/block/nbd0/queue/read_ahead_kb"), []byte("as it was"), 0o644)

			ctx, cancel := context.WithCancel(t.Context())
			c.Connections = connections
			d, wait := start(t, ctx, c, k)
			if !d.Again() {
				t.Error("Again is false after a take-over")
			}
			for range min(connections, 2) {
				k.ask(<-k.taken)
			}
			if got := setting(t, root, "read_ahead_kb"); got != "as it was" {
				t.Errorf("a setting was written while reads wait: read_ahead_kb is %q", got)
			}
			cancel()
			wait()
		})
	}
}

func TestTakeOverFromTheLiving(t *testing.T) {
	k := newFake(t)
	c := Config{Size: 4096, Serve: echo, Root: sysfs(t, 4096, "")}
	ctx, cancel := context.WithCancel(t.Context())
	_, wait := start(t, ctx, c, k)
	impatient, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	if _, err := attach(impatient, c, k); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another block daemon") {
		t.Errorf("a living device was taken over: %v", err)
	}
	k.ask(0)
	cancel()
	wait()
}

func TestDetach(t *testing.T) {
	k := newFake(t)
	d, wait := start(t, t.Context(), Config{Size: 4096, Serve: echo, Root: sysfs(t, 4096, "")}, k)
	if err := d.Detach(t.Context()); err != nil {
		t.Error(err)
	}
	if err := wait(); err != nil {
		t.Errorf("Run returned %v after Detach", err)
	}
}

func TestSomebodyElseDisconnects(t *testing.T) {
	k := newFake(t)
	_, wait := start(t, t.Context(), Config{Size: 4096, Serve: echo, Root: sysfs(t, 4096, "")}, k)
	k.disconnect(0)
	if err := wait(); !errors.Is(err, ErrLost) {
		t.Errorf("Run returned %v, want ErrLost", err)
	}
}

func TestProbe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "volume")
	for _, size := range []int64{512, 4096, 4608, 1 << 20} {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Probe(t.Context(), path, size); err != nil {
			t.Error(err)
		}
		if err := Probe(t.Context(), path, size+4096); err == nil {
			t.Errorf("a volume that is too short passes")
		}
	}
	if err := Probe(t.Context(), path+"?", 512); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("probe of nothing: %v", err)
	}
	fifo := filepath.Join(t.TempDir(), "stalled")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Probe(ctx, fifo, 512); !errors.Is(err, context.Canceled) {
		t.Errorf("probe of something that stalls: %v", err)
	}
	if w, err := os.OpenFile(fifo, os.O_WRONLY, 0); err == nil { // lets the reader go
		w.Close()
	}
}
