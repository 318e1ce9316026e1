package hardware

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/sleep"
)

// Events wakes a caller that waits for devices which need a driver (kernel uevents over
// netlink). It has no contents: the caller reads /sys again, so a lost message costs
// one polling period and nothing else.
type Events struct{ socket *os.File }

// Listen subscribes to the kernel's device events.
func Listen() (*Events, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("listen for device events: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen for device events: %w", err)
	}
	return &Events{os.NewFile(uintptr(fd), "uevents")}, nil
}

// Close ends the subscription.
func (e *Events) Close() error { return e.socket.Close() }

// Wait returns after the next event of a device that has a modalias, or after max, or
// with ctx's error.
func (e *Events) Wait(ctx context.Context, max time.Duration) error {
	if err := e.socket.SetReadDeadline(time.Now().Add(max)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = e.socket.SetReadDeadline(time.Unix(0, 1)) })
	defer stop()
	err := e.drain()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// ENOBUFS means that messages were lost, so there were some.
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, unix.ENOBUFS) {
		return fmt.Errorf("wait for device events: %w", err)
	}
	return nil
}

// drain waits for a message that matters and takes all that came with it, so that a
// burst of events causes one check.
func (e *Events) drain() error {
	conn, err := e.socket.SyscallConn()
	if err != nil {
		return err
	}
	var buf [8192]byte
	var failed error
	err = conn.Read(func(fd uintptr) bool {
		for got := false; ; {
			switch n, err := unix.Read(int(fd), buf[:]); {
			case errors.Is(err, unix.EAGAIN):
				return got // false: sleep until the socket is readable
			case err != nil && !errors.Is(err, unix.EINTR):
				failed = err
				return true
			case err == nil:
				got = got || bytes.Contains(buf[:n], []byte("\x00MODALIAS="))
			}
		}
	})
	return errors.Join(err, failed)
}

// pollEvery is the time between two checks without events. With them it is lostEvery: a
// check reads hundreds of files, and under emulation a boot that does it five times a
// second has no time for much else.
const (
	pollEvery = 200 * time.Millisecond
	lostEvery = 2 * time.Second
)

// Watch handles devices that arrive late (USB above all) until ctx ends, and calls
// report for each search that found something. It is meant to run
// beside the boot, between the first Coldplug and the handover.
func (l *Loader) Watch(ctx context.Context, report func(Report)) error {
	next, closeEvents := waker()
	defer closeEvents()
	for {
		if r := l.Coldplug(ctx); r.Devices > 0 && report != nil {
			report(r)
		}
		if err := next(ctx); err != nil {
			return err
		}
	}
}

// waker returns a function that waits for the next reason to check again. Without
// netlink (a namespace, an unusual kernel) that is the clock alone.
func waker() (next func(context.Context) error, closeEvents func()) {
	e, err := Listen()
	if err != nil {
		return func(ctx context.Context) error { return sleep.For(ctx, pollEvery) }, func() {}
	}
	return func(ctx context.Context) error { return e.Wait(ctx, lostEvery) }, func() { _ = e.Close() }
}
