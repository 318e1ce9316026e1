// Package segment has TCP send segments as large as the link's to GRUB, whose TCP
// announces no maximum segment size.
//
// Ours must then take 536 bytes for it (RFC 9293, 3.7.1): 40,000 packets for a kernel and
// an initramfs, each of which costs firmware about as much as a large one. But GRUB's
// buffers hold what a frame holds, and a machine that boots is on our link, where 1500
// bytes pass. The kernel can be told that the peer announced more, by a process with
// CAP_NET_ADMIN. Who serves boot files talks to strangers and does not have it; so it
// lends the connection to the block daemon, which sets that one thing.
// The invariant: whoever may ask gains nothing but larger segments on connections that
// it has anyway.
package segment

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// size is what a peer is said to have announced, in bytes: a frame of Ethernet without
// the headers of IPv4 and TCP. The kernel sends less where the link takes less.
const size = 1460

// Of linux/tcp.h: the option's number, and how the repair mode ends without a packet.
const (
	maximumSegment   = 2 // TCPOPT_MAXSEG
	repairOffNoProbe = -1
)

// enlarge has the kernel believe that the peer of an IPv4 connection, on which nothing was
// sent yet, announced size. It needs CAP_NET_ADMIN.
func enlarge(fd int) error {
	for _, want := range []struct{ option, value int }{{unix.SO_DOMAIN, unix.AF_INET}, {unix.SO_PROTOCOL, unix.IPPROTO_TCP}} {
		if got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, want.option); err != nil || got != want.value {
			return fmt.Errorf("no TCP connection by IPv4: socket option %d is %d, want %d (error %v)", want.option, got, want.value, err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); err != nil {
		return os.NewSyscallError("TCP_REPAIR", err)
	}
	// The repair mode is there to move connections to another machine: it takes what the
	// peer once announced (net/ipv4/tcp.c, tcp_repair_options_est).
	announced := [2]uint32{maximumSegment, size} // struct tcp_repair_opt
	_, _, errno := unix.Syscall6(unix.SYS_SETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_OPTIONS,
		uintptr(unsafe.Pointer(&announced)), unsafe.Sizeof(announced), 0)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, repairOffNoProbe); err != nil {
		return os.NewSyscallError("TCP_REPAIR", err)
	}
	if errno != 0 {
		return os.NewSyscallError("TCP_REPAIR_OPTIONS", errno)
	}
	// Setting no IP options has the kernel compute again what fits into a segment.
	return os.NewSyscallError("IP_OPTIONS", unix.SetsockoptString(fd, unix.IPPROTO_IP, unix.IP_OPTIONS, ""))
}
