package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/operator"
	"viver.lan/internal/sign"
)

// The network gets another name at each status that the follower reads.
func TestStatusFollows(t *testing.T) {
	l := &listener{table: &operator.Table{Network: "n"}}
	socket := serve(t, l)
	for form, read := range map[string]func(page []byte) string{
		"text": func(page []byte) string { return string(page) },
		"json": func(page []byte) string {
			var s control.Status
			if err := json.Unmarshal(page, &s); err != nil {
				t.Error(err)
			}
			return s.Members[0].Hostname
		},
	} {
		var said bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r, w := io.Pipe()
		ended := make(chan int, 1)
		go func() {
			ended <- run(ctx, environment{args: []string{"status", "--watch", "-o", form, "--socket", socket}, stdout: w, stderr: &said})
		}()
		page := make([]byte, 1<<16)
		for n := range 2 {
			size, err := r.Read(page)
			if text := read(page[:size]); err != nil || text == "" {
				t.Errorf("%s: page %d is %q, %v", form, n, text, err)
			}
			l.mu.Lock()
			l.table.Network += "n"
			l.mu.Unlock()
			l.Notify()
		}
		cancel()
		r.Close()
		if code := <-ended; code != exitInterrupted {
			t.Errorf("%s: exit code %d, want %d", form, code, exitInterrupted)
		}
		if said.Len() > 0 {
			t.Errorf("%s: interrupted, it says %s", form, &said)
		}
	}
}

// What is not answered has one of several reasons.
func TestWithoutADaemon(t *testing.T) {
	other := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", other)
	if err != nil {
		t.Fatal(err)
	}
	older := &http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = older.Serve(l) }()
	defer older.Close()
	set := []string{"node", "set", "52:54:00:00:00:01", "--name", "a"}
	for _, c := range []struct {
		args         []string
		socket, want string
	}{
		{[]string{"status"}, filepath.Join(t.TempDir(), "run", "s"), "did not boot with VIVER"},
		{[]string{"status", "--watch"}, filepath.Join(t.TempDir(), "run", "s"), "did not boot with VIVER"},
		{set, filepath.Join(t.TempDir(), "run", "s"), "did not boot with VIVER"},
		{[]string{"status"}, filepath.Join(t.TempDir(), "s"), "is started again"},
		{[]string{"status"}, other, "another version"},
		{[]string{"status", "--watch"}, other, "another version"},
		{set, other, "another version"},
	} {
		dir := t.TempDir()
		key := filepath.Join(dir, "key")
		if _, _, err := sign.OpenKey(key); err != nil {
			t.Fatal(err)
		}
		args := append(c.args[:len(c.args):len(c.args)], "--socket", c.socket)
		if c.args[0] == "node" {
			args = append(args, "--key", key)
		}
		var said bytes.Buffer
		code := run(t.Context(), environment{args: args, stdout: io.Discard, stderr: &said})
		if code != exitFailed || !strings.Contains(said.String(), c.want) {
			t.Errorf("%v: exit code %d, %s, want %q", args, code, &said, c.want)
		}
	}
}

func TestStatusSaysHowFullTheRootIs(t *testing.T) {
	for _, test := range []struct {
		written *control.Written
		want    string // "" for no line
	}{
		{nil, ""},
		{&control.Written{Size: 500e6, Free: 400e6, Files: 100_000, FilesFree: 90_000}, "100.0 MB of 500.0 MB used, room for 90000 more files\n"},
		{&control.Written{Size: 500e6, Free: 400e6, Files: 100_000}, "room for 0 more files: almost full"},
		{&control.Written{Size: 500e6, Free: 20e6, Files: 100_000, FilesFree: 90_000}, "more files: almost full"},
		{&control.Written{Size: 500e6, Free: 400e6}, "100.0 MB of 500.0 MB used\n"}, // btrfs has no limit
	} {
		var out strings.Builder
		if err := writeStatus(&out, &control.Status{Written: test.written}); err != nil {
			t.Fatal(err)
		}
		_, line, found := strings.Cut(out.String(), "written files")
		if found != (test.want != "") || !strings.Contains(line, test.want) {
			t.Errorf("%+v: %q, want %q", test.written, line, test.want)
		}
	}
}

func TestStatusSaysThatFaultsWereContained(t *testing.T) {
	for n, want := range map[uint64]bool{0: false, 3: true} {
		var out strings.Builder
		if err := writeStatus(&out, &control.Status{Panics: n}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), "3, each of which ended one connection or packet"); got != want {
			t.Errorf("%d faults: %q", n, out.String())
		}
	}
}

func TestStatusNamesRunesThatFailed(t *testing.T) {
	var out strings.Builder
	s := control.Status{Runes: []control.RuneOutcome{{Rune: "school", Outcome: "broken", Reason: "rune.toml:3: order: 200"}}}
	if err := writeStatus(&out, &s); err != nil || !strings.Contains(out.String(), "school is broken: rune.toml:3: order: 200\n") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}

func TestNodeListShowsStrangers(t *testing.T) {
	s := &control.Status{Peers: []control.Peer{
		{Address: netip.MustParseAddrPort("10.77.0.8:51413"), Client: "transmission"},
		{Address: netip.MustParseAddrPort("10.77.0.2:6881"), Ours: true},
	}}
	for n := range byte(maxStrangers) {
		s.Strangers = append(s.Strangers, control.Stranger{Address: netip.AddrFrom4([4]byte{10, 77, 1, n}), Reason: "no signature"})
	}
	for want, list := range map[string][]control.Stranger{
		"10.77.0.8:51413  transmission  a connection for pieces": nil,
		"10.77.1.0        -             no signature":            s.Strangers[:1],
		"and 1 more": s.Strangers,
	} {
		s.Strangers = list
		var out strings.Builder
		if err := writeMembers(&out, s); err != nil || !strings.Contains(out.String(), want) || strings.Contains(out.String(), "10.77.0.2") {
			t.Errorf("no %q in\n%s (%v)", want, &out, err)
		}
	}
}
