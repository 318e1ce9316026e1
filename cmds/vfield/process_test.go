package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"viver.lan/internal/control"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/netbed/netbedtest"
	"viver.lan/internal/testtable"
)

// Here the real program meets other people's, on one link: all of 10.77.0.0/24
// is the loopback interface of a network namespace, and every process has an
// address of its own.

// hostHome is where the home directory of whoever runs the tests is named.
const hostHome = "VIVER_TEST_HOME"

// actAs says what TestMain is to be: vfield.
const actAs = "VIVER_TEST_ACT_AS"

// TestMain is also vfield itself.
func TestMain(m *testing.M) {
	if os.Getenv(actAs) == "vfield" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// deadline is long: what is tested is that things happen, not how fast.
const deadline = 2 * time.Minute

// onOneLink reports whether the test shall do its work, with a network, a
// /dev/shm and a home of its own. It is false in the outer process, whose test
// ends then.
func onOneLink(t *testing.T) bool {
	t.Helper()
	if !netbedtest.Enter(t) {
		return false
	}
	if err := unix.Mount("tmpfs", "/dev/shm", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr("10.77.0.1/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(lo, addr); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	// The rule that finds this machine's own addresses is the first; it has to
	// come after those of cut.
	own, later := netlink.NewRule(), netlink.NewRule()
	own.Priority, own.Table = 0, unix.RT_TABLE_LOCAL
	later.Priority, later.Table = 10, unix.RT_TABLE_LOCAL
	if err := errors.Join(netlink.RuleAdd(later), netlink.RuleDel(own)); err != nil {
		t.Fatal(err)
	}
	t.Setenv(hostHome, os.Getenv("HOME"))
	t.Setenv("HOME", t.TempDir()) // strangers keep things there
	return true
}

// cut keeps two ranges of addresses from reaching each other until heal.
func cut(t *testing.T, a, b string) (heal func()) {
	t.Helper()
	ends := [2]*net.IPNet{}
	for i, s := range []string{a, b} {
		var err error
		if _, ends[i], err = net.ParseCIDR(s); err != nil {
			t.Fatal(err)
		}
	}
	var rules [2]*netlink.Rule
	for i := range rules {
		r := netlink.NewRule()
		r.Priority, r.Src, r.Dst, r.Type = 1, ends[i], ends[1-i], unix.FR_ACT_PROHIBIT
		if err := netlink.RuleAdd(r); err != nil {
			t.Fatalf("%v: %v", r, err)
		}
		rules[i] = r
	}
	return func() {
		for _, r := range rules {
			if err := netlink.RuleDel(r); err != nil {
				t.Errorf("%v: %v", r, err)
			}
		}
	}
}

// picture is an image directory and what is in it.
type picture struct {
	dir     string // holds the files
	torrent string // its metainfo
	info    *metainfo.Info
	files   map[string][]byte
}

// newPicture makes an image of odd files, so that pieces span their borders.
func newPicture(t *testing.T, size int) *picture {
	t.Helper()
	p := &picture{dir: filepath.Join(t.TempDir(), "tiny"), files: make(map[string][]byte)}
	random := rand.NewChaCha8([32]byte{9})
	var sources []metainfo.Source
	for _, f := range []struct {
		name string
		size int
	}{{"root.squashfs", size}, {"manifest.json", 1}, {"boot/grub.cfg", 333}, {"vmlinuz", size/7 | 1}, {"initramfs.img", 65537}} {
		data := make([]byte, f.size)
		random.Read(data)
		path := filepath.Join(p.dir, f.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		p.files[f.name] = data
		sources = append(sources, metainfo.Source{Name: f.name, Path: path})
	}
	torrent, info, err := metainfo.Create("tiny", sources, 128<<10, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.info, p.torrent = info, filepath.Join(filepath.Dir(p.dir), "image.torrent")
	if err := os.WriteFile(p.torrent, torrent, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// whole says what keeps dir from holding the image's files, "" when nothing.
func (p *picture) whole(dir string) string {
	for _, f := range p.info.Files {
		got, err := os.ReadFile(filepath.Join(dir, f.Name))
		switch {
		case err != nil:
			return err.Error()
		case !bytes.Equal(got, p.files[f.Name]):
			return fmt.Sprintf("%s differs (%d bytes of %d)", f.Name, len(got), f.Size)
		}
	}
	return ""
}

// process is a program that runs beside the test.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu   sync.Mutex
	said []string
}

// start runs a program; the end of the test ends it.
func start(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: cmd, done: make(chan struct{})}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer r.Close()
		s := bufio.NewScanner(r)
		s.Split(scanLines)
		for s.Scan() {
			p.mu.Lock()
			p.said = append(p.said, s.Text())
			p.mu.Unlock()
		}
	}()
	go func() {
		_ = cmd.Wait()
		<-read
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			said := p.output()
			t.Logf("%s (%v) said:\n%s", name, cmd.Args, said[max(0, len(said)-3000):])
		}
	})
	return p
}

// scanLines takes a carriage return, which ends a progress line, for a newline.
func scanLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if n := bytes.IndexAny(data, "\r\n"); n >= 0 {
		return n + 1, data[:n], nil
	}
	return bufio.ScanLines(data, atEOF)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.said, "\n")
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// says waits until the process has said something, and returns the line.
func (p *process) says(what string) (line string) {
	p.t.Helper()
	eventually(p.t, p.name+" says "+what, func() bool {
		ended := p.ended() // before what it said last is looked at
		p.mu.Lock()
		for _, line = range p.said {
			if strings.Contains(line, what) {
				p.mu.Unlock()
				return true
			}
		}
		p.mu.Unlock()
		if ended {
			p.t.Fatalf("%s ended before it said %q: %v\n%s", p.name, what, p.cmd.ProcessState, p.output())
		}
		return false
	})
	return line
}

// stop sends a signal and returns the exit code, -1 if a signal ended it.
func (p *process) stop(s os.Signal) int {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(deadline):
		p.t.Fatalf("%s does not end after %v", p.name, s)
	}
	return p.cmd.ProcessState.ExitCode()
}

// daemon is a running vfield --listen.
type daemon struct {
	*process
	swarm  netip.AddrPort
	nbd    string // of NBD clients, nbd://…
	socket string // of viver status
}

// vfieldCommand is our program with these arguments.
func vfieldCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), actAs+"=vfield")
	return cmd
}

// address of the nth machine.
func address(n, port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 77, 0, byte(n)}), uint16(port))
}

// startVfield starts our program as the nth machine and waits until it serves.
func startVfield(t *testing.T, n int, pic *picture, args ...string) *daemon {
	t.Helper()
	d := &daemon{swarm: address(n, control.SwarmPort), nbd: "nbd://" + address(n, 10809).String(),
		socket: filepath.Join(t.TempDir(), "s")}
	args = append([]string{"--listen", address(n, 10809).String(), "--swarm", d.swarm.String(),
		"--metainfo", pic.torrent, "--status", d.socket, "--name", fmt.Sprintf("node-%d", n)}, args...)
	d.process = start(t, fmt.Sprintf("vfield %d", n), vfieldCommand(context.Background(), args...))
	d.says("msg=serving")
	return d
}

// startOrigin starts our program as machine 1, which has the whole image.
func startOrigin(t *testing.T, pic *picture) *daemon {
	t.Helper()
	return startVfield(t, 1, pic, "--data", pic.dir)
}

func (d *daemon) status() *control.Status {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), deadline)
	defer cancel()
	s, err := control.NewClient(d.socket).Status(ctx)
	if err != nil {
		d.t.Fatalf("status of %s: %v", d.name, err)
	}
	return s
}

func (d *daemon) complete() bool {
	s := d.status()
	return s.Transfer.Have == s.Transfer.Pieces
}

// readAll copies every export of d with nbdcopy and compares it.
func (d *daemon) readAll(pic *picture) {
	d.t.Helper()
	dir := d.t.TempDir()
	for _, f := range pic.info.Files {
		to := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			d.t.Fatal(err)
		}
		stranger(d.t, "nbdcopy", d.nbd+"/"+f.Name, to)
	}
	if why := pic.whole(dir); why != "" {
		d.t.Errorf("read through %s: %s", d.nbd, why)
	}
}

// stranger runs a program that somebody else wrote to its end and returns
// what it printed.
func stranger(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// needs skips the test when a program is missing, and else prints which
// version there is: the first line of what it says to the argument.
func needs(t *testing.T, name, argument string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed: %v", name, err)
	}
	out, _ := exec.Command(name, argument).CombinedOutput() // some exit with 1
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	strangers().Add(t, name, first)
}

// strangers are the programs of others that tests run against ours.
func strangers() testtable.Table {
	return testtable.Table{Name: "strangers", Columns: []string{"program", "what it says of its version"}}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// viverProgram builds the operator's command into dir.
func viverProgram(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", dir, "../viver")
	cmd.Env = append(os.Environ(), "HOME="+os.Getenv(hostHome)) // where the Go command keeps its cache
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build viver: %v\n%s", err, out)
	}
}

// decode reads a program's JSON.
func decode(t *testing.T, data string, to any) {
	t.Helper()
	if err := json.Unmarshal([]byte(data), to); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}
