package supervise

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestAKilledProgramIsStartedAgain(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	pids := make(chan int, 8)
	s := &supervisor{
		programs:     []program{{name: "@sleeper", path: "/bin/sleep", args: []string{"60"}}},
		output:       os.Stderr,
		started:      func(_ string, pid int) { pids <- pid },
		shuttingDown: func() bool { return false },
		backoff:      time.Millisecond,
		log:          slog.New(slog.DiscardHandler),
	}
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	seen := map[int]bool{}
	for range 3 {
		pid := <-pids
		if seen[pid] {
			t.Fatalf("process %d was started twice", pid)
		}
		seen[pid] = true
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	last := <-pids
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(last, 0); err == nil {
		t.Error("the program outlived its supervisor")
	}
}

func TestNothingIsStartedDuringShutdown(t *testing.T) {
	starts := 0
	s := &supervisor{
		programs:     []program{{name: "true", path: "/bin/true"}},
		output:       os.Stderr,
		started:      func(string, int) { starts++ },
		shuttingDown: func() bool { return true },
		backoff:      time.Millisecond,
		log:          slog.New(slog.DiscardHandler),
	}
	if err := s.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if starts != 1 {
		t.Errorf("started %d times, want once", starts)
	}
}

func TestShuttingDown(t *testing.T) {
	for cmdline, want := range map[string]bool{
		"/sbin/init\x00":                                false,
		"/lib/systemd/systemd\x00--system\x00":          false,
		"/lib/systemd/systemd-shutdown\x00poweroff\x00": true,
		"init [2]  \x00":                                false,
		"init [6]  \x00":                                true,
		"init [0]\x00\x00\x00":                          true,
	} {
		path := filepath.Join(t.TempDir(), "cmdline")
		if err := os.WriteFile(path, []byte(cmdline), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := ShuttingDown(path); got != want {
			t.Errorf("ShuttingDown(%q) = %v, want %v", cmdline, got, want)
		}
	}
}

// A program reads the file that it was given, as often as it is started.
func TestProgramsReadTheInput(t *testing.T) {
	input, start, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	begun, starts := make(chan int), 0
	s := &supervisor{
		programs: []program{{name: "sh", path: "/bin/sh", args: []string{"-c", "cat; echo begun"}, input: input}},
		output:   out, log: slog.New(slog.DiscardHandler), backoff: time.Millisecond,
		started:      func(_ string, pid int) { begun <- pid },
		shuttingDown: func() bool { starts++; return starts == 2 },
	}
	done := make(chan error, 1)
	go func() { done <- s.run(t.Context()) }()
	<-begun
	if text, _ := os.ReadFile(out.Name()); len(text) > 0 {
		t.Errorf("it did not wait: %s", text)
	}
	start.Close()
	<-begun
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(out.Name()); string(text) != "begun\nbegun\n" {
		t.Errorf("the program says %q", text)
	}
}
