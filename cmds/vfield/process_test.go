package main

import (
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
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"viver.lan/internal/control"
	"viver.lan/internal/event"
	"viver.lan/internal/journal"
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
	log  *journal.Journal // what it prints
	done chan struct{}    // closed when it has ended
}

// printing returns a journal whose end is shown when the test fails.
func printing(t *testing.T, name string) *journal.Journal {
	log := new(journal.Journal)
	t.Cleanup(func() {
		if t.Failed() {
			said := log.String()
			t.Logf("%s said:\n%s", name, said[max(0, len(said)-5000):])
		}
	})
	return log
}

// start runs a program; the end of the test ends it.
func start(t *testing.T, name string, cmd *exec.Cmd, log *journal.Journal) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: cmd, log: log, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = time.Second // its children may hold what it prints to
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		_ = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.done
	})
	return p
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// until waits until something holds of the process, which must not end before.
func (p *process) until(what string, holds func() bool) {
	p.t.Helper()
	until(p.t, p.name+" "+what, func() bool {
		ended := p.ended() // before what it did last is looked at
		if holds() {
			return true
		}
		if ended {
			p.t.Fatalf("%s ended before it %s: %v\n%s", p.name, what, p.cmd.ProcessState, p.log)
		}
		return false
	})
}

// says waits until the process has said something.
func (p *process) says(what string) {
	p.t.Helper()
	p.until("says "+what, func() bool { return p.log.Says(what) })
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

// server is a running vfield --listen.
type server struct {
	*process
	socket string // of viver status
}

// serve starts our program. It returns when it answers; then it listens for NBD
// clients and peers too.
func serve(t *testing.T, name string, cmd *exec.Cmd, log *journal.Journal, socket string) *server {
	t.Helper()
	s := &server{start(t, name, cmd, log), socket}
	s.until("answers", func() bool { _, err := s.status(); return err == nil })
	return s
}

func (s *server) status() (*control.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return control.NewClient(s.socket).Status(ctx)
}

// transfer is what the server has and has sent; zero when it does not say.
func (s *server) transfer() event.Transfer {
	st, err := s.status()
	if err != nil {
		return event.Transfer{}
	}
	return st.Transfer
}

// complete reports whether the server holds everything.
func (s *server) complete() bool {
	now := s.transfer()
	return now.Pieces > 0 && now.Have == now.Pieces
}

// daemon is one on the link of this file.
type daemon struct {
	*server
	swarm netip.AddrPort
	nbd   string // of NBD clients, nbd://…
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
	d := &daemon{swarm: address(n, control.SwarmPort), nbd: "nbd://" + address(n, 10809).String()}
	name, socket := fmt.Sprintf("node-%d", n), filepath.Join(t.TempDir(), "s")
	args = append([]string{"--listen", address(n, 10809).String(), "--swarm", d.swarm.String(),
		"--metainfo", pic.torrent, "--status", socket, "--name", name}, args...)
	d.server = serve(t, name, vfieldCommand(context.Background(), args...), printing(t, name), socket)
	return d
}

// startOrigin starts our program as machine 1, which has the whole image.
func startOrigin(t *testing.T, pic *picture) *daemon {
	t.Helper()
	return startVfield(t, 1, pic, "--data", pic.dir)
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
