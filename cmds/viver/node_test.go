package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"viver.lan/internal/control"
	"viver.lan/internal/ether"
	"viver.lan/internal/notify"
	"viver.lan/internal/operator"
	"viver.lan/internal/roles"
	"viver.lan/internal/sign"
)

// listener is a node that stores overrides.
type listener struct {
	notify.Notifier
	owner sign.PublicKey

	mu    sync.Mutex
	table *operator.Table
}

func (l *listener) MemberStatus() control.Status { return l.Status() }

func (l *listener) Status() control.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	machines, _ := operator.Machines(l.table.Overrides())
	mac := ether.MAC{0x52, 0x54, 5: 1}
	return control.Status{Network: l.table.Network, Overrides: l.table.Overrides(), Members: []control.Member{{Hostname: "node-1", MAC: mac,
		Address: netip.MustParseAddr("10.77.0.2"), Name: machines[mac].Name, Reservation: machines[mac].Address}}}
}
func (*listener) SetRoles(context.Context, []roles.Name) error        { return nil }
func (*listener) Open(context.Context, string) (io.ReadSeeker, error) { return nil, os.ErrNotExist }
func (l *listener) PutOverride(e operator.Override) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.Notify()
	return l.table.Accept(e, func(m, s []byte) error { return l.owner.Verify(sign.Override, m, s) })
}

// namer is one whose network has no name until somebody asks for one.
type namer struct{ *listener }

func (n namer) BeginNetwork() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.table.Network = "new"
	n.Notify()
	return nil
}

// serve has a daemon answer on a socket until the test ends.
func serve(t *testing.T, d control.Daemon) (socket string) {
	socket = filepath.Join(t.TempDir(), "s")
	served := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { served <- control.Serve(ctx, socket, -1, d, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() { cancel(); <-served })
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := control.NewClient(socket).Status(ctx); err == nil {
			return socket
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// A node that starts is waited for, and what it lacks is said.
func TestANodeIsWaitedFor(t *testing.T) {
	nameless := serve(t, &listener{table: &operator.Table{}})
	absent := filepath.Join(t.TempDir(), "s")
	for socket, want := range map[string]string{nameless: errNoName.Error(), absent: "no such file"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := onNetwork(ctx, control.NewClient(socket), socket); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	time.AfterFunc(300*time.Millisecond, func() {
		served <- control.Serve(ctx, absent, -1, &listener{table: &operator.Table{Network: "n"}}, slog.New(slog.DiscardHandler))
	})
	if s, err := onNetwork(ctx, control.NewClient(absent), absent); err != nil || s.Network != "n" {
		t.Errorf("it has the status %+v, %v", s, err)
	}
	cancel()
	<-served
	fresh := serve(t, namer{&listener{table: &operator.Table{}}})
	if s, err := onNetwork(t.Context(), control.NewClient(fresh), fresh); err != nil || s.Network != "new" {
		t.Errorf("a network where nothing was signed: %+v, %v", s, err)
	}
}

func TestNodeSet(t *testing.T) {
	dir := t.TempDir()
	mine, other := filepath.Join(dir, "mine.key"), filepath.Join(dir, "other.key")
	key, _, err := sign.OpenKey(mine)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := sign.OpenKey(other); err != nil {
		t.Fatal(err)
	}
	l := &listener{owner: key.Public(), table: &operator.Table{Network: "n"}}
	ahead := operator.Override{Network: "n", Key: operator.NameOf(ether.MAC{0x52, 0x54, 5: 1}), Value: "old", Time: uint64(time.Now().Add(time.Hour).UnixNano()), Sequence: 9}
	ahead.Signature = key.Sign(sign.Override, ahead.SignedBytes())
	if err := l.PutOverride(ahead); err != nil { // written on a computer whose clock is fast
		t.Fatal(err)
	}
	socket := serve(t, l)
	const mac = "52:54:00:00:00:01"
	for _, step := range []struct {
		args []string
		code int
		said string // by the command
		list string // the machine's name and reservation, afterwards
	}{
		{[]string{mac, "--name", "lab-1", "--key", mine}, exitOK, "", "lab-1 -"},
		{[]string{"52-54-00-00-00-01", "--name", "a-b-3", "--key", mine}, exitOK, "", "a-b-3 -"},
		{[]string{mac, "--ip", "10.0.0.7", "--key", mine}, exitOK, "", "a-b-3 10.0.0.7"},
		{[]string{mac, "--name", "evil", "--key", other}, exitFailed, "does not take it", "a-b-3 10.0.0.7"},
		{[]string{mac, "--ip", "10.0.0.9", "--key", other}, exitFailed, "does not take it", "a-b-3 10.0.0.7"},
		{[]string{mac, "--name", "x", "--key", mine + ".absent"}, exitFailed, "no such file", "a-b-3 10.0.0.7"},
		{[]string{mac, "--name", "-x", "--ip", "10.0.0.8", "--key", mine}, exitUsage, "no host name", "a-b-3 10.0.0.7"},
		{[]string{mac, "--name", "x", "--ip", "10.0.0.300", "--key", mine}, exitUsage, "want IPv4, such as", "a-b-3 10.0.0.7"},
		{[]string{mac, "--ip", "fe80::1", "--key", mine}, exitUsage, "want IPv4, such as", "a-b-3 10.0.0.7"},
		{[]string{mac, "--ip", "10.0.0.8/24", "--key", mine}, exitUsage, "want IPv4, such as", "a-b-3 10.0.0.7"},
		{[]string{"lab-1", "--name", "x", "--key", mine}, exitUsage, "no MAC address", "a-b-3 10.0.0.7"},
		{[]string{mac, "--key", mine}, exitUsage, "[name ip]", "a-b-3 10.0.0.7"},
		{[]string{mac, "--name", "lab-07", "--ip", "10.0.0.8", "--key", mine}, exitOK, "", "lab-07 10.0.0.8"},
		{[]string{mac, "--name", "", "--key", mine}, exitOK, "", "- 10.0.0.8"},
		{[]string{mac, "--ip", "", "--key", mine}, exitOK, "", "- -"},
	} {
		viver := func(args ...string) (int, string) {
			var out bytes.Buffer
			code := run(t.Context(), environment{args: append(args, "--socket", socket), stdout: &out, stderr: &out, executable: os.Executable,
				configDir: func() (string, error) { return dir, nil }})
			return code, out.String()
		}
		if code, said := viver(append([]string{"node", "set"}, step.args...)...); code != step.code || !strings.Contains(said, step.said) {
			t.Errorf("%v: exit code %d, want %d; it said %q, want %q", step.args, code, step.code, said, step.said)
		}
		_, said := viver("node", "list")
		lines := strings.Split(said, "\n")
		if len(lines) < 2 || len(strings.Fields(lines[1])) < 5 {
			t.Fatalf("after %v the list is\n%s", step.args, said)
		}
		if head := strings.Fields(lines[0]); head[3] != "reservation" {
			t.Errorf("the fourth column is called %q", head[3])
		}
		if f := strings.Fields(lines[1]); f[1]+" "+f[3] != step.list {
			t.Errorf("after %v the machine has %s %s, want %s", step.args, f[1], f[3], step.list)
		}
	}
}
