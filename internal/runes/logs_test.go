package runes

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/ether"
	"viver.lan/internal/netbed"
)

const (
	journalRemote = "/usr/lib/systemd/systemd-journal-remote"
	journalUpload = "/usr/lib/systemd/systemd-journal-upload"
)

// journal writes entries called NAME FROM and so on as journald of the machine would.
func (m *labMachine) journal(t *testing.T, from, n int) {
	t.Helper()
	id := fmt.Sprintf("0123456789abcdef0123456789abcd%02x", m.Index()+1)
	var export strings.Builder
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	for i := from; i < from+n; i++ {
		fmt.Fprintf(&export, "__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%s\n_MACHINE_ID=%s\n_HOSTNAME=%s\nMESSAGE=%s %d.\n\n",
			start+int64(i)*1000, (i+1)*1000, id, id, m.name, m.name, i)
	}
	m.write(t, "/etc/machine-id", id+"\n", 0o644)
	dir := filepath.Join(m.root, "var/log/journal", id)
	must(t, os.MkdirAll(dir, 0o755))
	file := filepath.Join(dir, fmt.Sprintf("part%d.journal", from))
	cmd := exec.Command(journalRemote, "-o", file+".new.journal", "-")
	cmd.Stdin = strings.NewReader(export.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	must(t, os.Chmod(file+".new.journal", 0o644))
	must(t, os.Rename(file+".new.journal", file))
}

// collected says which of a machine's entries 0 to n are missing at a collector, or there
// more than once.
func (m *labMachine) collected(from *labMachine, n int) string {
	out, err := exec.Command("journalctl", "-q", "-D", filepath.Join(m.root, "var/log/journal/remote"), "-o", "cat", "_HOSTNAME="+from.name).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	for i := range n {
		// The last one before a break may come again.
		if c := countLines(string(out), fmt.Sprintf("%s %d.", from.name, i)); c == 0 || c > 2 {
			return fmt.Sprintf("%s has entry %d of %s %d times", m.name, i, from.name, c)
		}
	}
	return ""
}

func TestNetnsLogs(t *testing.T) {
	if !inNetwork(t, journalRemote, journalUpload, "journalctl", "perl") {
		return
	}
	l := openNetwork(t, "logs", nil, 4, nil)
	a, b, c, stranger := l.machines[0], l.machines[1], l.machines[2], l.machines[3]
	stranger.up = false
	for _, m := range l.machines[:3] {
		m.journal(t, 0, 20)
	}
	everything := func(at *labMachine, n int, of ...*labMachine) {
		t.Helper()
		for _, m := range of {
			until(t, func() string { return at.collected(m, n) })
		}
	}
	l.converge(t) // nobody collects
	a.roles = []string{"collector"}
	l.converge(t)
	everything(a, 20, a, b, c)
	b.journal(t, 20, 5)
	everything(a, 25, b)

	t.Run("last words", func(t *testing.T) {
		journal, err := net.ListenPacket("unixgram", mkdirs(t, a.root, "run/systemd/journal/socket"))
		must(t, err)
		defer journal.Close()
		must(t, os.Chmod(filepath.Join(a.root, "run/systemd/journal/socket"), 0o666))
		speak(t, stranger.Node, a, "a lie\n")
		speak(t, b.Node, a, "Oops: 0002\x1b[1m\nMESSAGE=panic\n")
		for _, want := range []string{"b: Oops: 0002?[1m\n", "b: MESSAGE=panic\n"} {
			buf := make([]byte, 4096)
			must(t, journal.SetReadDeadline(time.Now().Add(time.Minute)))
			n, _, err := journal.ReadFrom(buf)
			must(t, err)
			if got := string(buf[:n]); got != "PRIORITY=4\nSYSLOG_IDENTIFIER=netconsole\nMESSAGE="+strings.ReplaceAll(want, "b: ", b.name+": ") {
				t.Errorf("the journal is told %q", got)
			}
		}
	})

	// The collector dies, and what it had with it. What was written meanwhile is sent, too.
	a.die(t)
	b.journal(t, 25, 5)
	l.converge(t)
	c.journal(t, 20, 10)
	c.roles = []string{"collector"}
	l.converge(t)
	everything(c, 30, b, c)

	// A machine with a disk comes: it has everything, and the collector no more to do.
	b.roles = []string{"archive"}
	l.converge(t)
	everything(b, 30, b, c)
	if got := c.services["collector"].Start[2]; got != "idle" {
		t.Errorf("beside an archive the collector is started with %q", got)
	}
	// It is gone for a moment, and goes on where it was.
	b.roles = nil
	l.converge(t)
	c.journal(t, 30, 5)
	everything(c, 35, c)
	b.roles = []string{"archive"}
	l.converge(t)
	everything(b, 35, c)
}

// speak sends what a kernel says by netconsole.
func speak(t *testing.T, from *netbed.Node, to *labMachine, words string) {
	t.Helper()
	conn, err := from.Dial(t.Context(), "udp", to.AddrPort(6666).String())
	must(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte(words))
	must(t, err)
}

func mkdirs(t *testing.T, root, name string) string {
	t.Helper()
	name = filepath.Join(root, name)
	must(t, os.MkdirAll(filepath.Dir(name), 0o755))
	return name
}

func TestLogsOnADebianRoot(t *testing.T) {
	where := image(t, map[string]string{journalRemote: "", journalUpload: "", "usr/bin/perl": "", "bin/sh": ""})
	f := testFacts()
	f.Members = []MemberFact{
		{Hostname: "disk", Address: "10.77.0.9", MAC: ether.MAC{2, 9}, HostKey: "ssh-ed25519 DISK", Roles: []string{"logs/archive"}},
		{Hostname: "node-1a2b", Address: "10.77.3.4", HostKey: "ssh-ed25519 AAAA", Roles: []string{"logs/collector"}},
	}
	f.Roles = []string{"logs/collector"}
	w := wantedOf(t, where, "logs", f)
	for name, want := range map[string]string{
		"send":      "/bin/sh /run/viver-logs/send eth0 10.77.3.4 10.77.0.9 02:09:00:00:00:00 ssh-ed25519 DISK",
		"collector": "/bin/sh /run/viver-logs/collect idle ",
		"archive":   "",
	} {
		if got := w[name]; got != want {
			t.Errorf("%s is started by %q, want %q", name, got, want)
		}
	}
	f.Members = f.Members[1:]
	if got := wantedOf(t, where, "logs", f)["collector"]; got != "/bin/sh /run/viver-logs/collect 10.77.3.4 " {
		t.Errorf("without an archive the collector is started by %q", got)
	}
	f.Init = "sysvinit"
	if got := apply(t, where, builtins(t), f)["logs"]; got.Outcome != Skipped {
		t.Errorf("without systemd: %+v", got)
	}
}

// wantedOf lays a built-in rune on a root, and returns what its services are started by.
func wantedOf(t *testing.T, where Target, name string, f Facts) map[string]string {
	t.Helper()
	bundles := builtins(t)
	if r := apply(t, where, bundles, f)[name]; r.Outcome != Applied {
		t.Fatalf("%+v", r)
	}
	s, err := OpenSystem(Target{Root: where.Root})
	must(t, err)
	defer s.Close()
	started := make(map[string]string)
	for _, b := range bundles {
		if b.Name != name {
			continue
		}
		for _, svc := range s.Wanted(b, f).Services {
			must(t, svc.Err)
			started[svc.Name] = strings.Join(svc.Start, " ")
		}
	}
	return started
}
