package boothost

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// GRUB's TCP announces no maximum segment size, so ours must take 536 bytes for it
// (RFC 9293, 3.7.1): 40,000 packets for a kernel and an initramfs, each of which costs
// firmware about as much as a large one. Its buffers hold what a frame of the link
// holds, and it is on our link, where 1500 bytes pass. So we have the kernel take
// grubSegment as announced.
const (
	grubAgent   = "GRUB " // how its User-Agent begins
	grubSegment = 1460    // the kernel makes it less where the link's MTU is smaller
)

// Of linux/tcp.h: the option's number, and how the repair mode ends without a packet.
const (
	tcpMaximumSegment   = 2 // TCPOPT_MAXSEG
	tcpRepairOffNoProbe = -1
)

// connectionKey is for the connection in the context of a request.
type connectionKey struct{}

// withConnection is a http.Server's ConnContext.
func withConnection(ctx context.Context, c net.Conn) context.Context {
	if counted, ok := c.(*countedConn); ok {
		c = counted.Conn
	}
	return context.WithValue(ctx, connectionKey{}, c)
}

// enlargeSegments makes the answer to GRUB come in segments as large as the link's. It
// does nothing for other clients, which say what they take.
func enlargeSegments(r *http.Request) error {
	conn, ok := r.Context().Value(connectionKey{}).(*net.TCPConn)
	if !ok || !strings.HasPrefix(r.UserAgent(), grubAgent) {
		return nil
	}
	return announceSegment(conn, grubSegment)
}

// announceSegment has the kernel believe that the peer of a connection on which nothing
// was sent yet announced a maximum segment size, in bytes. It needs CAP_NET_ADMIN.
func announceSegment(conn *net.TCPConn, size uint32) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) { setErr = setSegment(int(fd), size) })
	if err = errors.Join(err, setErr); err != nil {
		return fmt.Errorf("segments of %d bytes: %w", size, err)
	}
	return nil
}

// setSegment does so through the repair mode, which is there to move connections to
// another machine (net/ipv4/tcp.c, tcp_repair_options_est).
func setSegment(fd int, size uint32) (err error) {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
		return os.NewSyscallError("TCP_REPAIR", err)
	}
	option := [2]uint32{tcpMaximumSegment, size} // struct tcp_repair_opt
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_OPTIONS,
		uintptr(unsafe.Pointer(&option)), unsafe.Sizeof(option), 0)
	if errno != 0 {
		err = os.NewSyscallError("TCP_REPAIR_OPTIONS", errno)
	}
	if off := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, tcpRepairOffNoProbe); off != nil {
		return errors.Join(err, os.NewSyscallError("TCP_REPAIR", off))
	}
	if err != nil {
		return err
	}
	// Setting no IP options has the kernel compute again what fits into a segment.
	return os.NewSyscallError("IP_OPTIONS", unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, ""))
}
