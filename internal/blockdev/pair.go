package blockdev

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// pair is the two ends of one connection.
type pair struct {
	ours    *net.UnixConn
	kernels *os.File // dropped once the kernel holds a reference of its own
}

func newPair() (pair, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return pair{}, fmt.Errorf("make a socketpair: %w", err)
	}
	ours, kernels := os.NewFile(uintptr(fds[0]), "nbd server's end"), os.NewFile(uintptr(fds[1]), "nbd kernel's end")
	defer ours.Close() // FileConn duplicates it
	conn, err := net.FileConn(ours)
	if err != nil {
		kernels.Close()
		return pair{}, fmt.Errorf("use a socketpair: %w", err)
	}
	return pair{ours: conn.(*net.UnixConn), kernels: kernels}, nil
}

// fd of the kernel's end, for a request.
func (p pair) fd() int { return int(p.kernels.Fd()) }

// taken tells, once our copy of the kernel's end is closed, whether the kernel
// kept one. NBD_CMD_RECONFIGURE reports success also when it had no use for a
// socket; then ours was the last copy, and our end is hung up by now.
func (p pair) taken() (bool, error) {
	raw, err := p.ours.SyscallConn()
	if err != nil {
		return false, err
	}
	var state []unix.PollFd
	var pollErr error
	err = raw.Control(func(fd uintptr) {
		state = []unix.PollFd{{Fd: int32(fd)}} // a hang-up is reported unasked
		for {
			if _, pollErr = unix.Poll(state, 0); pollErr != unix.EINTR {
				return
			}
		}
	})
	if err == nil {
		err = pollErr
	}
	if err != nil {
		return false, fmt.Errorf("look at a socketpair: %w", err)
	}
	return state[0].Revents&unix.POLLHUP == 0, nil
}
