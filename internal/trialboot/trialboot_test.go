package trialboot

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"viver.lan/internal/event"
)

// machine puts a script in QEMU's place: its descriptors 3 to 5 are the console and the
// ports of uinit and vfield.
func machine(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

const (
	pseudofs = `echo '{"kind":"stage","data":{"name":"pseudofs","state":"done"}}' >&4
`
	up = `echo '{"kind":"up","data":{"reason":"enough","record":"AP8K"}}' >&5
`
)

func TestRecord(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	machine(t, "echo $$ >"+pid+"\n"+`echo 'GRUB loading.' >&3
echo 'no event' >&4
echo '{"kind":"parade","data":{}}' >&4
`+pseudofs+up+"exec sleep 1000\n")
	var stages []string
	got, err := Record(context.Background(), Config{Medium: "x.iso", Memory: 512, Progress: func(s string) { stages = append(stages, s) }})
	if err != nil || !bytes.Equal(got, []byte("\x00\xff\n")) {
		t.Errorf("record %q, %v", got, err)
	}
	// The ports have no common order.
	if text := strings.Join(stages, ", "); text != "up: enough" && text != "pseudofs, up: enough" {
		t.Errorf("stages %q", stages)
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
		t.Errorf("process %d is there: %v", n, err)
	}
}

func TestMachineThatDoesNotComeUp(t *testing.T) {
	for _, c := range []struct{ name, script, want string }{
		{"QEMU refuses", "echo 'no such device' >&2; exit 1", "switched off before it was up; the last that it printed:\nno such device"},
		{"it is switched off", "echo 'bye \x1b[2J' >&3; " + pseudofs, "switched off before it was up; the last that it printed:\nbye [2J"},
		{"the boot stops", `echo '{"kind":"stage","data":{"name":"root","state":"stopped","detail":"no squashfs"}}' >&4; exec sleep 1000`, "stopped at its stage root: no squashfs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			machine(t, c.script)
			if got, err := Record(context.Background(), Config{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("record %q, %v; want an error with %q", got, err, c.want)
			}
		})
	}
}

// TestKVMThatDoesNotWork: a machine that did not get as far as our programs is started
// again without it, one that did is not.
func TestKVMThatDoesNotWork(t *testing.T) {
	const script = `case "$*" in *kvm*) `
	for _, c := range []struct{ name, script, fails string }{
		{"it aborts", script + "echo 'SeaBIOS' >&3; exit 134;; esac\n" + up + "exec sleep 1000", ""},
		{"it works", script + up + "exec sleep 1000;; esac\nexit 1", ""},
		{"the boot fails", script + pseudofs + "exit 1;; esac\n" + up + "exec sleep 1000", "switched off before it was up"},
	} {
		t.Run(c.name, func(t *testing.T) {
			machine(t, c.script)
			got, err := Record(context.Background(), Config{})
			if (err == nil) != (c.fails == "") || err == nil && len(got) != 3 || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("record %q, %v", got, err)
			}
		})
	}
}

func TestInterrupted(t *testing.T) {
	machine(t, pseudofs+"exec sleep 1000")
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := Record(ctx, Config{Progress: func(string) { cancel() }}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestNoQEMU(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := os.Stat("/usr/sbin/" + program); err == nil {
		t.Fatal("it is where programs are looked for without PATH")
	}
	_, err := Record(context.Background(), Config{})
	for _, err := range []error{err, Available()} {
		if err == nil || !strings.Contains(err.Error(), "install qemu-system-x86") {
			t.Errorf("got %v", err)
		}
	}
}

// TestSilence: a machine that prints is waited for, one that does not is not.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &vm{reports: make(chan event.Event)}
		go func() {
			for range 3 {
				time.Sleep(silence - time.Second)
				m.reports <- nil
			}
		}()
		before := time.Now()
		_, _, err := m.wait(context.Background(), nil)
		if err == nil || !strings.Contains(err.Error(), "printed nothing for 5m0s") {
			t.Errorf("got %v", err)
		}
		if waited := time.Since(before); waited != 3*(silence-time.Second)+silence {
			t.Errorf("waited %v", waited)
		}
	})
}

func TestArguments(t *testing.T) {
	a := Config{Medium: "/a, b.iso", Memory: 2048}.arguments("kvm", map[string]uintptr{"console": 3, "uinit": 4, "vfield": 5})
	for _, want := range []string{"if=none,id=cd,media=cdrom,readonly=on,format=raw,file=/a,, b.iso", "2048", "file,id=vfield,path=/dev/fd/5",
		"virtserialport,chardev=uinit,name=viver.events.uinit", "chardev:console", "user,id=net,restrict=on"} {
		if !slices.Contains(a, want) {
			t.Errorf("no %q in %q", want, a)
		}
	}
}

func TestLongLines(t *testing.T) {
	machine(t, "head -c 3000000 /dev/zero | tr '\\0' x >&5; echo >&5; "+up+"exec sleep 1000")
	if got, err := Record(context.Background(), Config{}); err != nil || len(got) != 3 {
		t.Errorf("record %q, %v", got, err)
	}
}
