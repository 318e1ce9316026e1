package main

import (
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"viver.lan/internal/machine"
)

// rescueWait is how long the rescue message stays before the machine reboots
// and tries again.
const rescueWait = 60 * time.Second

// rescue ends a boot that cannot go on: a sentence on the console, a shell if somebody
// presses a key, else a reboot.
func (n *node) rescue(reason error) {
	n.log.Error("this machine cannot go on", "error", reason)
	console, err := os.OpenFile("/dev/console", os.O_RDWR, 0)
	if err != nil {
		console = os.Stdin
	}
	fmt.Fprintf(console, "\r\n*** VIVER cannot go on.\r\n*** %v\r\n*** Press a key for a shell; the machine restarts in %.0f s.\r\n", reason, rescueWait.Seconds())
	if keyPressed(console, rescueWait) {
		shell := exec.Command("/bbin/gosh")
		shell.Stdin, shell.Stdout, shell.Stderr = console, console, console
		shell.Env = []string{"PATH=/bbin:/sbin", "HOME=/", "TERM=linux"}
		fmt.Fprint(console, "\r\n*** The log is in dmesg. Leave the shell to restart the machine.\r\n")
		if err := shell.Run(); err != nil {
			n.log.Warn("rescue shell", "error", err)
		}
	}
	n.log.Warn("restarting")
	if err := (machine.Host{}).Reboot(unix.LINUX_REBOOT_CMD_RESTART); err != nil {
		n.log.Error("cannot restart; switch the machine off and on", "error", err)
		select {} // process 1 must not end
	}
}

// keyPressed waits for input on the console. Raw mode, because people press
// any key, not Return.
func keyPressed(console *os.File, wait time.Duration) bool {
	fd := int(console.Fd())
	if old, err := term.MakeRaw(fd); err == nil {
		defer term.Restore(fd, old)
	}
	for end := time.Now().Add(wait); ; {
		left := time.Until(end)
		if left <= 0 {
			return false
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			time.Sleep(time.Until(end)) // no usable console: only the wait is left
			return false
		}
		var key [16]byte
		count, err := console.Read(key[:])
		return err == nil && count > 0
	}
}
