package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/sleep"
	"viver.lan/qemu-tests/guests/execproto"
)

// checkEvery is the pause between checks for a port or a host that is not there.
const checkEvery = 100 * time.Millisecond

// port is an open virtio-serial port (drivers/char/virtio_console.c): without
// a host on the other side a read ends at once and poll says POLLHUP.
type port struct{ *os.File }

// openPort waits for the port to appear and for its one opener to be us.
func openPort(ctx context.Context, timeout time.Duration) (*port, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for {
		path, err := findPort("/sys")
		if err == nil {
			var fd int
			fd, err = unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			if err == nil {
				return &port{os.NewFile(uintptr(fd), path)}, nil
			}
			err = fmt.Errorf("open %s: %w", path, err)
		}
		if sleep.For(ctx, checkEvery) != nil {
			return nil, fmt.Errorf("no port after %s: %w", timeout, err)
		}
	}
}

// findPort returns the device of the port named execproto.PortName.
func findPort(sys string) (string, error) {
	names, err := filepath.Glob(filepath.Join(sys, "class/virtio-ports/*/name"))
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(text)) == execproto.PortName {
			return filepath.Join("/dev", filepath.Base(filepath.Dir(name))), nil
		}
	}
	return "", fmt.Errorf("no virtio-serial port is named %s; there are %d others", execproto.PortName, len(names))
}

// awaitHost returns when a host listens on the other side.
func (p *port) awaitHost(ctx context.Context) error {
	conn, err := p.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var events int16
		err := conn.Control(func(fd uintptr) {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT}}
			if _, err := unix.Poll(fds, 0); err == nil {
				events = fds[0].Revents
			}
		})
		switch {
		case err != nil:
			return err
		case events&unix.POLLHUP == 0 && events != 0:
			return nil
		}
		if err := sleep.For(ctx, checkEvery); err != nil {
			return err
		}
	}
}
