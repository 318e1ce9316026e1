// Command init is the init system of the tiny image: enough of one to show
// that a root file system works, and no more.
//
// It mounts what is missing, says `tiny: ready HOSTNAME ADDRESS` in the kernel
// log, starts every program in /etc/viver/services.d in the background and
// reaps what dies. As in busybox, SIGUSR1 halts, SIGUSR2 powers off, SIGTERM
// and SIGINT (Ctrl-Alt-Del) reboot; called as poweroff, reboot or halt it sends
// that signal to process 1. It has no log-in and restarts nothing. The
// invariant: a process whose argv[0] begins with @ holds the root disk and is
// never killed.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// signals maps the name init is called by to the signal process 1 understands.
var signals = map[string]unix.Signal{
	"halt":     unix.SIGUSR1,
	"poweroff": unix.SIGUSR2,
	"shutdown": unix.SIGUSR2,
	"reboot":   unix.SIGTERM,
}

// endings maps those signals to what reboot(2) does in the end.
var endings = map[os.Signal]int{
	unix.SIGUSR1: unix.LINUX_REBOOT_CMD_HALT,
	unix.SIGUSR2: unix.LINUX_REBOOT_CMD_POWER_OFF,
	unix.SIGPWR:  unix.LINUX_REBOOT_CMD_POWER_OFF,
	unix.SIGTERM: unix.LINUX_REBOOT_CMD_RESTART,
	unix.SIGINT:  unix.LINUX_REBOOT_CMD_RESTART,
}

func main() {
	if err := run(filepath.Base(os.Args[0])); err != nil {
		fmt.Fprintln(os.Stderr, "tiny:", err)
		os.Exit(1)
	}
}

func run(name string) error {
	if s, ok := signals[name]; ok {
		return unix.Kill(1, s)
	}
	if os.Getpid() != 1 {
		return errors.New("init runs as process 1; to stop the machine call poweroff or reboot")
	}
	caught := make(chan os.Signal, 16)
	signal.Notify(caught, unix.SIGCHLD, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPWR, unix.SIGTERM, unix.SIGINT)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) // then Ctrl-Alt-Del is a SIGINT

	log := openLog()
	mountMissing(log)
	hostname, _ := os.Hostname() // an empty name is shown as such
	fmt.Fprintf(log, "tiny: ready %s %s\n", hostname, address())
	startServices(log)

	for s := range caught {
		if s == unix.SIGCHLD {
			reap()
			continue
		}
		fmt.Fprintf(log, "tiny: %v: stopping\n", s)
		stop(log)
		return unix.Reboot(endings[s])
	}
	return nil
}

// openLog returns the kernel log, which shows on every console, or else
// standard output.
func openLog() *os.File {
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return os.Stdout
	}
	return f
}

func mountMissing(log *os.File) {
	for _, m := range []struct {
		kind, dir, data string
		flags           uintptr
	}{
		{"proc", "/proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"sysfs", "/sys", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"devtmpfs", "/dev", "mode=755", unix.MS_NOSUID},
		{"devpts", "/dev/pts", "mode=620,gid=5", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"tmpfs", "/run", "mode=755", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/tmp", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
	} {
		if mounted(m.dir) {
			continue
		}
		_ = os.MkdirAll(m.dir, 0o755) // the mount says what is wrong
		if err := unix.Mount(m.kind, m.dir, m.kind, m.flags, m.data); err != nil {
			fmt.Fprintf(log, "tiny: mount %s on %s: %v\n", m.kind, m.dir, err)
		}
	}
}

// mounted reports whether dir is a mount point: its device is not its parent's.
func mounted(dir string) bool {
	var here, above unix.Stat_t
	if unix.Stat(dir, &here) != nil || unix.Stat(filepath.Dir(dir), &above) != nil {
		return false
	}
	return here.Dev != above.Dev
}

// address returns the first IPv4 address that is not for this host alone.
func address() string {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return "-"
	}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	return "-"
}

func startServices(log *os.File) {
	programs, _ := filepath.Glob("/etc/viver/services.d/*") // the pattern is right
	for _, p := range programs {
		fi, err := os.Stat(p)
		if err != nil || !fi.Mode().IsRegular() || fi.Mode()&0o111 == 0 {
			continue
		}
		_, err = os.StartProcess(p, []string{p}, &os.ProcAttr{
			Dir:   "/",
			Env:   []string{"PATH=/bin:/sbin:/usr/local/bin:/usr/bin:/usr/sbin", "HOME=/root", "TERM=linux"},
			Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
			Sys:   &unix.SysProcAttr{Setsid: true},
		})
		if err != nil {
			fmt.Fprintf(log, "tiny: start %s: %v\n", p, err)
		}
	}
}

func reap() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if pid <= 0 || err != nil {
			return
		}
	}
}

// stop ends all processes but the storage daemons and lets go of the disks.
func stop(log *os.File) {
	for _, round := range []struct {
		signal unix.Signal
		wait   time.Duration
	}{{unix.SIGTERM, 5 * time.Second}, {unix.SIGKILL, 2 * time.Second}} {
		deadline := time.Now().Add(round.wait)
		pids := mortals()
		for _, pid := range pids {
			_ = unix.Kill(pid, round.signal) // it may have gone by itself
		}
		for len(pids) > 0 && time.Now().Before(deadline) {
			time.Sleep(50 * time.Millisecond)
			reap()
			pids = mortals()
		}
	}
	unix.Sync()
	unmount(log)
	unix.Sync()
}

// mortals lists the processes that may be killed: not ourselves, not kernel
// threads, not storage daemons.
func mortals() []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	var pids []int
	for _, dir := range dirs {
		var pid int
		if _, err := fmt.Sscanf(filepath.Base(dir), "%d", &pid); err != nil || pid == 1 {
			continue
		}
		line, err := os.ReadFile(dir + "/cmdline")
		if err == nil && len(line) > 0 && line[0] != '@' {
			pids = append(pids, pid)
		}
	}
	return pids
}

// keep are the mounts that whoever serves the root disk still needs.
var keep = []string{"/proc", "/sys", "/dev", "/run"}

func unmount(log *os.File) {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		fmt.Fprintf(log, "tiny: list mounts: %v\n", err)
		return
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		fields := strings.Fields(lines[i])
		if len(fields) < 2 || fields[1] == "/" || kept(fields[1]) {
			continue
		}
		if err := unix.Unmount(fields[1], 0); err != nil {
			fmt.Fprintf(log, "tiny: unmount %s: %v\n", fields[1], err)
		}
	}
	// The root stays mounted; read-only, its upper layer is whole on its disk.
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		fmt.Fprintf(log, "tiny: make the root read-only: %v\n", err)
	}
}

func kept(dir string) bool {
	for _, k := range keep {
		if dir == k || strings.HasPrefix(dir, k+"/") {
			return true
		}
	}
	return false
}
