package runner

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/booted"
	"viver.lan/internal/runes"
)

// A service that cannot be noted is not left running: nobody would ever end it.
func TestServiceThatCannotBeNoted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root starts programs in a booted system")
	}
	dir := t.TempDir()
	o, err := newOwn(t.Context(), &own{system: booted.System{Process: "/proc/self"}, dir: filepath.Join(dir, "services"),
		cgroup: filepath.Join(dir, "cgroup"), log: slog.New(slog.DiscardHandler), shuttingDown: func() bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(o.dir); err != nil {
		t.Fatal(err)
	}
	s := stateOf("a", runes.Service{Name: "web", Start: []string{"/bin/sleep", "3600"}})
	r := record{Service: s}
	if err := o.launch(&r); err == nil || r.Process == 0 {
		t.Fatalf("process %d, %v: want one that is not noted, in a directory that is gone", r.Process, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := awaitEnd(ctx, r); err != nil {
		killAll(r)
		t.Errorf("it still runs: %v", err)
	}
}

// The system's logger is found through the system's own links, as on an image of busybox.
func TestLoggerThatIsALink(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root starts programs in a booted system")
	}
	process := t.TempDir()
	bin := filepath.Join(process, "root/usr/bin")
	if err := errors.Join(os.MkdirAll(bin, 0o755), os.Mkdir(filepath.Join(process, "ns"), 0o755),
		os.Symlink("/proc/self/ns/mnt", filepath.Join(process, "ns/mnt")), os.Symlink("/usr/bin/only-there", filepath.Join(bin, "logger")),
		os.WriteFile(filepath.Join(bin, "only-there"), []byte("no program"), 0o755)); err != nil {
		t.Fatal(err)
	}
	o := &own{system: booted.System{Process: process}}
	if _, err := o.logger("a.service"); err == nil {
		t.Error("it was not found, else it would be said that it cannot start")
	}
}

// service runs a script as a service is run, until it says something.
func service(t *testing.T, script string) (r record, said *bufio.Reader, wait func() error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said = bufio.NewReader(out)
	if _, err := said.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	r.Process = cmd.Process.Pid
	r.Began, _ = began(r.Process) // it may have ended
	return r, said, cmd.Wait
}

// What a service has started ends with it, even when its first process was gone before.
func TestEndEndsWhatTheFirstProcessLeft(t *testing.T) {
	r, said, _ := service(t, "sleep 3600 & echo $!; exit 3")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := errors.Join(awaitEnd(ctx, r), end(t.Context(), r)); err != nil {
		t.Fatal(err)
	}
	watch := time.AfterFunc(30*time.Second, func() { t.Error("it still runs"); _ = unix.Kill(-r.Process, unix.SIGKILL) })
	defer watch.Stop()
	if _, err := said.ReadString('\n'); err != io.EOF { // it held the pipe
		t.Error(err)
	}
}

// A service has its time to end, though we do not wait for anything else any more.
func TestEndLeavesTime(t *testing.T) {
	r, said, wait := service(t, "trap 'echo saved; exit' TERM; echo up; while :; do sleep 0.01; done")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := end(ctx, r); err != nil {
		t.Fatal(err)
	}
	if last, err := said.ReadString('\n'); last != "saved\n" {
		t.Errorf("its last word is %q, %v", last, err)
	}
	_ = wait() // its status is no news
}
