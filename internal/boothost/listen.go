package boothost

import (
	"context"
	"net"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// listenUDP opens an IPv4 port that hears one interface only, broadcasts
// included.
func listenUDP(ctx context.Context, iface string, port int) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: bindTo(iface)}
	conn, err := lc.ListenPacket(ctx, "udp4", net.JoinHostPort("0.0.0.0", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// bindTo makes a socket deaf to all other interfaces (socket(7),
// SO_BINDTODEVICE).
func bindTo(iface string) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var bindErr error
		err := c.Control(func(fd uintptr) { bindErr = unix.BindToDevice(int(fd), iface) })
		if err != nil {
			return err
		}
		return bindErr
	}
}
