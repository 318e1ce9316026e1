package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"viver.lan/internal/config"
	"viver.lan/internal/notify"
	"viver.lan/internal/operator"
	"viver.lan/internal/roles"
)

type fakeDaemon struct {
	notify.Notifier
	data []byte

	mu     sync.Mutex
	status Status
	asked  int // for the status
	roles  []roles.Name
}

func newFakeDaemon() *fakeDaemon {
	return &fakeDaemon{data: []byte("0123456789"), status: Status{Hostname: "node-1", Device: "/dev/nbd0"}}
}

func (f *fakeDaemon) PutOverride(e operator.Override) error {
	if string(e.Signature) != "signed" {
		return errors.New("who says so?")
	}
	f.change(func(s *Status) { s.Overrides = append(s.Overrides[:len(s.Overrides):len(s.Overrides)], e) })
	return nil
}

func (f *fakeDaemon) SetRoles(_ context.Context, held []roles.Name) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.roles = held
	return nil
}

// change changes the status.
func (f *fakeDaemon) change(do func(*Status)) {
	f.mu.Lock()
	do(&f.status)
	f.mu.Unlock()
	f.Notify()
}

func (f *fakeDaemon) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return f.status
}

// MemberStatus is the status without the number of pinned pieces.
func (f *fakeDaemon) MemberStatus() Status {
	s := f.Status()
	s.Pinned = 0
	return s
}

func (f *fakeDaemon) Open(_ context.Context, name string) (io.ReadSeeker, error) {
	if name != "boot/shimx64.efi" {
		return nil, os.ErrNotExist
	}
	return bytes.NewReader(f.data), nil
}

func serve(t *testing.T, path string) context.CancelFunc {
	t.Helper()
	return serveDaemon(t, path, newFakeDaemon())
}

func serveDaemon(t *testing.T, path string, d Daemon) context.CancelFunc {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, path, -1, d, slog.New(slog.DiscardHandler))
	}()
	stop := func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve ended with %v", err)
		}
	}
	for range 100 {
		if _, err := NewClient(path).Status(ctx); err == nil {
			return stop
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the socket never answered")
	return nil
}

func TestStatusAndFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	stop := serve(t, path)
	defer stop()
	c := NewClient(path)
	s, err := c.Status(t.Context())
	if err != nil || s.Hostname != "node-1" || s.Device != "/dev/nbd0" {
		t.Fatalf("status = %+v, %v", s, err)
	}
	r, err := c.readRange(t.Context(), "boot/shimx64.efi", 3, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "3456" {
		t.Errorf("range = %q, %v", got, err)
	}
	if _, err := c.readRange(t.Context(), "../etc/shadow", 0, 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a name outside the image gives %v, want not found", err)
	}
}

func TestFileStreamsAndSeeks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	defer serve(t, path)()
	f := NewClient(path).Open(t.Context(), "boot/shimx64.efi", 10)
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err != nil || end != 10 {
		t.Fatalf("Seek to the end = %d, %v", end, err)
	}
	if _, err := f.Seek(4, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	part := make([]byte, 2)
	if _, err := io.ReadFull(f, part); err != nil || string(part) != "45" {
		t.Errorf("read %q, %v", part, err)
	}
	if rest, err := io.ReadAll(f); err != nil || string(rest) != "6789" {
		t.Errorf("rest %q, %v", rest, err)
	}
	if _, err := f.Seek(-11, io.SeekEnd); err == nil {
		t.Error("seek before the start was accepted")
	}
	long := NewClient(path).Open(t.Context(), "boot/shimx64.efi", 20)
	if _, err := io.ReadAll(long); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file shorter than the manifest says gives %v", err)
	}
}

func TestOverrides(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	defer serve(t, path)()
	c := NewClient(path)
	long := strings.Repeat("\x7f", 256) // JSON makes it longer
	for _, e := range []operator.Override{{Key: "k", Value: "v", Sequence: 1 << 63, Signature: []byte("signed")}, {Key: "l", Value: long, Signature: []byte("signed")}} {
		if err := c.PutOverride(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.PutOverride(t.Context(), operator.Override{Key: "k"}); err == nil || !strings.Contains(err.Error(), "who says so?") {
		t.Errorf("unsigned: %v", err)
	}
	s, err := c.Status(t.Context())
	if err != nil || len(s.Overrides) != 2 || s.Overrides[0].Value != "v" || s.Overrides[0].Sequence != 1<<63 || s.Overrides[1].Value != long {
		t.Errorf("%+v, %v", s, err)
	}
}

// slowDaemon takes long to open a file.
type slowDaemon struct {
	*fakeDaemon
	begun, answer chan struct{}
}

func (d slowDaemon) Open(context.Context, string) (io.ReadSeeker, error) {
	close(d.begun)
	<-d.answer
	return nil, os.ErrNotExist
}

// What an answer uses may be closed once Serve has returned.
func TestServeWaitsForItsAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	d := slowDaemon{newFakeDaemon(), make(chan struct{}), make(chan struct{})}
	end := serveDaemon(t, path, d)
	asked, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(asked)
		_, _ = NewClient(path).readRange(t.Context(), "slow", 0, 1) // there is no such file
	}()
	<-d.begun
	go func() {
		defer close(ended)
		end()
	}()
	select {
	case <-ended:
		t.Error("Serve has returned before its answer")
	case <-time.After(100 * time.Millisecond):
	}
	close(d.answer)
	<-ended
	<-asked
}

func TestServeReplacesALeftSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	defer serve(t, path)()
	if err := Serve(t.Context(), path, -1, newFakeDaemon(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a second daemon: %v", err)
	}
	file := filepath.Join(t.TempDir(), "letter")
	if err := os.WriteFile(file, []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Serve(t.Context(), file, -1, newFakeDaemon(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "else than a socket") {
		t.Errorf("a file: %v", err)
	}
	if b, err := os.ReadFile(file); string(b) != "dear" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

func TestBootRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "boot.json")
	if err := WriteState(path, &Boot{Hostname: "node-1", First: true, DHCP: "full", Settings: config.New().List()}); err != nil {
		t.Fatal(err)
	}
	b, err := ReadBoot(path)
	if err != nil || b.Hostname != "node-1" || !b.First || len(b.Settings) != len(config.Names()) {
		t.Fatalf("boot = %+v, %v", b, err)
	}
	if _, err := ReadBoot(path + ".absent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file gives %v", err)
	}
}
