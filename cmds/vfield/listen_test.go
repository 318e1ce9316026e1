package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestListenExplains starts the program wrongly in every way we could think
// of. It ends, says in one line what was found and what to do, and leaves
// nothing behind.
func TestListenExplains(t *testing.T) {
	pic := newPicture(t, 1<<20)
	put := func(name string, data []byte) string {
		t.Helper()
		name = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	torrent, err := os.ReadFile(pic.torrent)
	if err != nil {
		t.Fatal(err)
	}
	short := newPicture(t, 1<<20)
	if err := os.Truncate(filepath.Join(short.dir, "vmlinuz"), 100); err != nil {
		t.Fatal(err)
	}
	letter := put("letter", []byte("dear"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	base := []string{"--listen", "127.0.0.1:0", "--swarm", "127.0.0.1:0", "--metainfo", pic.torrent}
	for _, c := range []struct {
		name string
		args []string
		code int
		says string // a regular expression
	}{
		{"no metainfo", []string{"--listen", "127.0.0.1:0"}, exitUsage, `--metainfo is missing`},
		{"no address", []string{"--metainfo", pic.torrent}, exitUsage, `--listen is missing`},
		{"an unknown flag", append(base, "--nope"), exitUsage, `-nope`},
		{"something else", append(base, "please"), exitUsage, `"please" is not a flag`},
		{"an address without a port", append(base, "--origin", "10.77.0.1"), exitUsage, `"10.77.0.1".*-origin`},
		{"a size", append(base, "--cache", "much"), exitUsage, `"much" is no size`},
		{"seeds for nobody", append(base, "--seed", "10.77.0.1:7946"), exitUsage, `--gossip is needed`},
		{"absent metainfo", append(base, "--metainfo", letter+".absent"), exitFailed, `letter.absent: no such file`},
		{"no metainfo at all", append(base, "--metainfo", letter), exitFailed, `letter: read metainfo: `},
		{"half a metainfo", append(base, "--metainfo", put("half", torrent[:len(torrent)/2])), exitFailed, `half: read metainfo: .*ends too early`},
		{"damaged metainfo", append(base, "--metainfo", put("bad", bytes.Replace(torrent, []byte("131072"), []byte("131073"), 1))), exitFailed, `bad: read metainfo: piece length 131073, want`},
		{"a directory without the image", append(base, "--data", filepath.Dir(letter)), exitFailed, `root.squashfs: no such file`},
		{"a file cut short", append(base, "--data", short.dir), exitFailed, `vmlinuz has 100 bytes, the metainfo says 149797`},
		{"a cache too small", append(base, "--cache", "100K"), exitUsage, `--cache is 102400 bytes, and one piece of this image 131072`},
		{"a taken NBD port", append(base, "--listen", taken), exitFailed, `serve NBD.*address already in use: another program.*--listen`},
		{"a taken swarm port", append(base, "--swarm", taken), exitFailed, `listen for peers.*address already in use: another program.*--swarm`},
		{"an address that is not ours", append(base, "--listen", "192.0.2.1:10809"), exitFailed, `serve NBD.*192.0.2.1:10809.*cannot assign`},
		{"a status file that is none", append(base, "--status", letter), exitFailed, `letter: there is something else than a socket`},
		{"a store that is a directory", append(base, "--store", pic.dir), exitFailed, `tiny: `},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		cmd := vfieldCommand(ctx, c.args...)
		said, _ := cmd.CombinedOutput()
		cancel()
		lines := strings.Split(strings.TrimSpace(string(said)), "\n")
		last := lines[len(lines)-1]
		if !strings.HasPrefix(last, "vfield: ") || !regexp.MustCompile(c.says).MatchString(last) {
			t.Errorf("%s: it says %q, want %q", c.name, said, c.says)
		}
		if help := strings.HasSuffix(last, "(see vfield --help)"); help != (c.code == exitUsage) {
			t.Errorf("%s: it says %q", c.name, last)
		}
		if got := cmd.ProcessState.ExitCode(); got != c.code {
			t.Errorf("%s: exit code %d, want %d", c.name, got, c.code)
		}
	}
}

func TestListenHelp(t *testing.T) {
	out, err := vfieldCommand(t.Context(), "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"usage: vfield --listen", "-metainfo file", "-cache size", "Exit code"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("help does not tell %q:\n%s", want, out)
		}
	}
}

// A node that is told to end does, whatever it was doing: nothing stays in
// memory, not even after a kill.
func TestNetnsListenEnds(t *testing.T) {
	if !onOneLink(t) {
		return
	}
	pic := newPicture(t, 1<<20+1)
	origin := startOrigin(t, pic)
	for _, c := range []struct {
		name   string
		signal syscall.Signal
		code   int
		args   []string
	}{
		{"Ctrl-C", unix.SIGINT, 0, []string{"--origin", origin.swarm.String()}},
		{"SIGTERM", unix.SIGTERM, 0, []string{"--origin", origin.swarm.String()}},
		{"Ctrl-C while it waits", unix.SIGINT, 0, []string{"--origin", address(99, 6881).String()}},
		{"SIGTERM among members", unix.SIGTERM, 0, []string{"--gossip", address(2, 7946).String(), "--seed", address(1, 7946).String()}},
		{"kill -9", unix.SIGKILL, -1, []string{"--origin", origin.swarm.String()}},
	} {
		d := startVfield(t, 2, pic, c.args...)
		if got := d.stop(c.signal); got != c.code {
			t.Errorf("%s: exit code %d, want %d:\n%s", c.name, got, c.code, d.log)
		}
		if left, err := os.ReadDir("/dev/shm"); err != nil || len(left) != 0 {
			t.Errorf("%s: left in memory: %v, %v", c.name, left, err)
		}
		if _, err := os.Stat(d.socket); c.code == 0 && !os.IsNotExist(err) {
			t.Errorf("%s: the status socket is left: %v", c.name, err)
		}
	}
}

// A node says how far it is, and for whom it waits.
func TestNetnsListenReports(t *testing.T) {
	if !onOneLink(t) {
		return
	}
	pic := newPicture(t, 1<<20+1)
	node := startVfield(t, 2, pic, "--origin", address(1, 6881).String())
	alone := startVfield(t, 3, pic)
	node.says("no answer from 10.77.0.1:6881; asking again and again")
	alone.says("waiting for somebody to connect")
	startOrigin(t, pic)
	node.says("msg=complete")
}
