package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"viver.lan/qemu-tests/harness/lan"
)

// QEMU is the program that runs machines.
const QEMU = "qemu-system-x86_64"

// Options say how a lab behaves. All fields may be empty.
type Options struct {
	// VMs is how many machines will boot or compute at a time; 1 if zero. Those that
	// wait, or answer one that boots, hardly count: the lab's log says how much its
	// machines have worked. Two or more have the host for themselves.
	VMs int
	// OnRecord sees every event of every machine. It must not wait.
	OnRecord func(vm string, rec Record)
	// Logf says what the lab does, for people.
	Logf func(format string, args ...any)
	// Again is the command that repeats the scenario, for a message.
	Again string
}

// Lab is where one scenario happens.
type Lab struct {
	dir    string
	opts   Options
	accel  string
	slots  *slots
	opened time.Time

	mu       sync.Mutex
	vms      []*VM
	switches []*lan.Switch
	captures []*lan.Capture
}

// Open prepares a lab that keeps its files in dir, which is emptied first. It
// waits until the host has room for the machines.
func Open(ctx context.Context, dir string, opts Options) (*Lab, error) {
	if opts.Logf == nil {
		opts.Logf = func(string, ...any) {}
	}
	if _, err := exec.LookPath(QEMU); err != nil {
		return nil, fmt.Errorf("open lab: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("open lab: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open lab: %w", err)
	}
	slots, err := takeSlots(ctx, os.TempDir(), max(opts.VMs, 1))
	if err != nil {
		return nil, fmt.Errorf("open lab: %w", err)
	}
	l := &Lab{dir: dir, opts: opts, slots: slots, opened: time.Now()}
	var why string
	l.accel, why = Accelerator(ctx, QEMU)
	opts.Logf("machines run under %s: %s", l.accel, why)
	return l, nil
}

// New prepares a lab that lives as long as the test. What it leaves is kept
// in qemu-tests/out/ when the test failed. The test is skipped where QEMU is
// not installed.
func New(t testing.TB, opts Options) *Lab {
	t.Helper()
	Need(t, QEMU)
	root, err := ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	if opts.Logf == nil {
		opts.Logf = t.Logf
	}
	if opts.Again == "" {
		opts.Again = fmt.Sprintf("./build.sh test qemu -run '^%s$'", strings.ReplaceAll(t.Name(), "/", "$/^"))
	}
	dir := filepath.Join(root, "qemu-tests", "out", strings.NewReplacer("/", "_", " ", "_").Replace(t.Name()))
	l, err := Open(t.Context(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(l.Explain())
		}
		if err := l.Close(); err != nil {
			t.Errorf("close lab: %v", err)
		}
		if !t.Failed() {
			_ = os.RemoveAll(dir) // only space
		}
	})
	return l
}

// Dir is where the lab keeps its files.
func (l *Lab) Dir() string { return l.dir }

// Accel is "kvm" or "tcg".
func (l *Lab) Accel() string { return l.accel }

// LAN makes a network segment whose frames are recorded in NAME.pcap.
func (l *Lab) LAN(name string) (*lan.Switch, error) {
	capture, err := lan.NewCapture(l.capturePath(name))
	if err != nil {
		return nil, err
	}
	s := lan.New(capture)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.switches = append(l.switches, s)
	l.captures = append(l.captures, capture)
	return s, nil
}

func (l *Lab) capturePath(name string) string { return filepath.Join(l.dir, name+".pcap") }

// Capture returns the path of a LAN's capture with everything in it so far.
func (l *Lab) Capture(name string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.captures {
		if err := c.Flush(); err != nil {
			return "", err
		}
	}
	return l.capturePath(name), nil
}

// Explain says how to repeat the scenario and where its traces are, and shows
// the end of every console.
func (l *Lab) Explain() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	if l.opts.Again != "" {
		fmt.Fprintf(&b, "repeat it:\n  %s\n", l.opts.Again)
	}
	fmt.Fprintf(&b, "console logs, events and captures: %s\n", l.dir)
	for _, vm := range l.vms {
		fmt.Fprintf(&b, "\n%s alone, by hand:\n  %s\n%s: %s\n", vm.config.Name, vm.byHand(), vm.config.Name, vm.events.last())
		lines := strings.Split(strings.TrimSpace(vm.console.Text()), "\n")
		fmt.Fprintf(&b, "the end of its console:\n")
		for _, line := range lines[max(0, len(lines)-25):] {
			fmt.Fprintf(&b, "  | %s\n", line)
		}
	}
	return b.String()
}

// Close switches every machine off, ends the networks and waits for all of
// it. The files stay.
func (l *Lab) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	var worked time.Duration
	for _, vm := range l.vms {
		vm.PowerCut()
		worked += vm.worked
	}
	if len(l.vms) > 0 {
		l.opts.Logf("the machines have worked for %.0f s of %.0f s", worked.Seconds(), time.Since(l.opened).Seconds())
	}
	for _, s := range l.switches {
		s.Close()
	}
	for _, c := range l.captures {
		errs = append(errs, c.Close())
	}
	l.vms, l.switches, l.captures = nil, nil, nil
	l.slots.release()
	return errors.Join(errs...)
}

// Need skips the test when one of the programs is not installed. In CI (the
// environment says CI=true) that is an error.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			Skip(t, fmt.Sprintf("%s is not installed", p))
		}
	}
}

// Skip skips the test for a reason, or fails it in CI.
func Skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("would be skipped, which CI does not allow: %s", reason)
	}
	t.Skip(reason)
}

// ModuleRoot is the directory of go.mod above the working directory.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("find the module: no go.mod in or above %s", dir)
		}
	}
}

// copyFile copies a small file, such as OVMF's variables.
func copyFile(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(dst)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
