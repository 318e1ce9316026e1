// Package packet sends and receives whole Ethernet frames on one link: the UDP
// datagrams that carry DHCP, and ARP.
//
// It works before the kernel's own IP stack has an address, and no firewall of the
// distribution comes in between. It knows neither DHCP messages nor the machine's
// addresses. The invariant: a frame with any content becomes a struct or an error.
package packet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const maxFrame = 9216 // bytes; a jumbo frame

// The kinds of frames that a Socket may be opened for (IEEE 802.3 EtherType).
const (
	EtherTypeIPv4 = unix.ETH_P_IP
	EtherTypeARP  = unix.ETH_P_ARP
)

// Socket sends and receives whole Ethernet frames on one link. Only one goroutine
// may receive at a time.
type Socket struct {
	file *os.File
	buf  []byte
}

// Open opens a socket on the link with this index for one EtherType; filter narrows
// what the kernel copies to us and may be nil.
func Open(ifindex int, etherType uint16, filter []bpf.Instruction) (*Socket, error) {
	// Protocol 0 receives nothing until bind, so that no frame of another link
	// or one that the filter would drop gets in before.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	if err := setUp(fd, ifindex, etherType, filter); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open packet socket on link %d: %w", ifindex, err)
	}
	return &Socket{file: os.NewFile(uintptr(fd), "packet"), buf: make([]byte, maxFrame)}, nil
}

func setUp(fd, ifindex int, etherType uint16, filter []bpf.Instruction) error {
	if len(filter) > 0 {
		raw, err := bpf.Assemble(filter)
		if err != nil {
			return err
		}
		code := make([]unix.SockFilter, len(raw))
		for i, r := range raw {
			code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
		}
		program := &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, program); err != nil {
			return fmt.Errorf("attach filter: %w", err)
		}
	}
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: networkOrder(etherType), Ifindex: ifindex})
}

// networkOrder returns the value whose bytes in memory are v in big endian.
func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// UDPTo matches IPv4 UDP datagrams to any of the ports and drops fragments.
func UDPTo(ports ...uint16) []bpf.Instruction {
	n := uint8(len(ports))
	filter := []bpf.Instruction{
		bpf.LoadAbsolute{Off: etherHeader + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipFalse: n + 4},
		bpf.LoadAbsolute{Off: etherHeader + 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: n + 2},
		bpf.LoadMemShift{Off: etherHeader},
		bpf.LoadIndirect{Off: etherHeader + 2, Size: 2},
	}
	for i, port := range ports {
		filter = append(filter, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(port), SkipTrue: n - uint8(i)})
	}
	return append(filter, bpf.RetConstant{Val: 0}, bpf.RetConstant{Val: maxFrame})
}

// Send sends a frame, its Ethernet header included.
func (s *Socket) Send(frame []byte) error {
	if _, err := s.file.Write(frame); err != nil {
		return fmt.Errorf("send on packet socket: %w", err)
	}
	return nil
}

// ReceiveUntil hands every frame that arrives before the deadline to handle, until
// handle returns true. It returns nil then, os.ErrDeadlineExceeded when time ran
// out, and the context's error when that ended first. A zero deadline never comes.
// The frame is valid until handle returns.
func (s *Socket) ReceiveUntil(ctx context.Context, deadline time.Time, handle func(frame []byte) bool) error {
	if err := s.file.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("receive on packet socket: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		n, err := s.file.Read(s.buf)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, unix.ENETDOWN) {
			continue // reported once when somebody sets the link down; the guard sets it up again
		}
		if err != nil {
			return fmt.Errorf("receive on packet socket: %w", err)
		}
		if handle(s.buf[:n]) {
			return nil
		}
	}
}

// Close closes the socket.
func (s *Socket) Close() { _ = s.file.Close() }

// ARPFrom matches ARP packets whose sender says that it has ip.
func ARPFrom(ip netip.Addr) []bpf.Instruction {
	b := ip.As4()
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: etherHeader + 14, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3]), SkipFalse: 1},
		bpf.RetConstant{Val: maxFrame},
		bpf.RetConstant{Val: 0},
	}
}
