// Package nowait makes system calls that return at once without telling the Go runtime.
//
// Before other system calls the runtime wakes its monitor thread, which sleeps while
// nothing runs, so that somebody else gets the processor should the call take long. The
// thread then looks every 20 µs until all is idle again. For a process that is woken
// thousands of times, for some microseconds each, as the server of a block device is while
// its machine boots, that is a fifth of all that it does. Whoever calls this package says
// that the call waits for nothing: meanwhile no goroutine gets the processor. The
// invariant: a Conn waits for its peer in the runtime's poller, as any connection does.
//
// A goroutine that makes no other calls and never waits is not interrupted until the
// thread wakes by itself, which it does at the process's next timer.
package nowait

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ReadAt is f.ReadAt for a file in memory, and does not go on after a short read.
func ReadAt(f *os.File, p []byte, off int64) (n int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := raw.Control(func(fd uintptr) {
		n, err = call(unix.SYS_PREAD64, fd, p, uintptr(off))
	})
	switch {
	case failed != nil:
		return 0, failed
	case err != nil:
		return 0, os.NewSyscallError("pread", err)
	case n < len(p):
		return n, io.EOF
	}
	return n, nil
}

// SetsockoptInt is unix.SetsockoptInt.
func SetsockoptInt(fd, level, option int, value int32) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&value)), unsafe.Sizeof(value), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Conn is a connection. One goroutine at a time may read from it, and one write to it.
type Conn struct {
	net.Conn
	in, out transfer
}

// transfer is a read or a write, each of which is one until it has moved something.
type transfer struct {
	raw    syscall.RawConn
	name   string
	number uintptr // of the system call
	try    func(fd uintptr) (done bool)
	p      []byte
	n      int
	err    error
}

// Wrap returns conn, as a Conn if it has a socket.
func Wrap(conn net.Conn) net.Conn {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return conn
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return conn
	}
	c := &Conn{Conn: conn, in: transfer{raw: raw, name: "read", number: unix.SYS_READ}, out: transfer{raw: raw, name: "write", number: unix.SYS_WRITE}}
	c.in.try, c.out.try = c.in.attempt, c.out.attempt // made once: each is an allocation
	return c
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (n int, err error) {
	n, err = c.in.move(c.in.raw.Read, p)
	if n == 0 && err == nil && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = c.out.move(c.out.raw.Write, p[n:])
		n += more
	}
	return n, err
}

// move tries once, and again whenever the poller says that it may succeed.
func (t *transfer) move(whenReady func(try func(fd uintptr) bool) error, p []byte) (n int, err error) {
	t.p, t.n, t.err = p, 0, nil
	err = whenReady(t.try)
	t.p = nil
	if err == nil {
		err = os.NewSyscallError(t.name, t.err)
	}
	return t.n, err
}

func (t *transfer) attempt(fd uintptr) (done bool) {
	t.n, t.err = call(t.number, fd, t.p, 0)
	return t.err != unix.EAGAIN
}

// call makes a system call with a buffer, again for as long as a signal ends it.
func call(number, fd uintptr, p []byte, last uintptr) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), last, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
