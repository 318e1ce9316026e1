package boothost

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// priorityBulk is TC_PRIO_BULK of linux/pkt_sched.h.
const priorityBulk = 2

// listenUDP opens an IPv4 port, any if it is zero, that receives from one interface
// only, broadcasts included if the address is 0.0.0.0.
func listenUDP(ctx context.Context, iface string, at netip.Addr, port uint16) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: bindTo(iface)}
	conn, err := lc.ListenPacket(ctx, "udp4", netip.AddrPortFrom(at, port).String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// bindTo binds a socket to one interface (socket(7), SO_BINDTODEVICE).
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

// bulk is a listener whose connections send after everything else that waits for
// the network card (socket(7), SO_PRIORITY; tc-pfifo_fast(8)). Otherwise the DHCP
// and TFTP packets of machines that start would queue behind the downloads of all
// others.
type bulk struct{ *net.TCPListener }

// Accept returns the next connection. One whose priority cannot be set is served
// like the others.
func (b bulk) Accept() (net.Conn, error) {
	conn, err := b.AcceptTCP()
	if err != nil {
		return nil, err
	}
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY, priorityBulk)
		})
	}
	return conn, nil
}

// limited is a listener with a limit for all open connections, at which others wait
// until one is closed, and one for those of an address, so that one machine cannot use
// up all of them: it hangs up on an address that has so many.
type limited struct {
	net.Listener
	perClient int

	slots  chan struct{} // one for each open connection
	closed chan struct{}
	close  func()

	mu   sync.Mutex
	open map[netip.Addr]int
}

// limit returns l with a limit for all connections and one for those of an address.
func limit(l net.Listener, all, perClient int) *limited {
	closed := make(chan struct{})
	return &limited{Listener: l, perClient: perClient, slots: make(chan struct{}, all), closed: closed,
		close: sync.OnceFunc(func() { close(closed) }), open: make(map[netip.Addr]int)}
}

// Close ends the listener, also while Accept waits for a connection to be closed.
func (l *limited) Close() error {
	l.close()
	return l.Listener.Close()
}

// Accept returns the next connection that may stay.
func (l *limited) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			<-l.slots
			return nil, err
		}
		remote, ok := conn.RemoteAddr().(*net.TCPAddr)
		if !ok {
			conn.Close()
			continue
		}
		client := remote.AddrPort().Addr().Unmap()
		if !l.enter(client) {
			conn.Close()
			continue
		}
		return &countedConn{Conn: conn, leave: sync.OnceFunc(func() { l.leave(client) })}, nil
	}
}

func (l *limited) enter(client netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[client] >= l.perClient {
		return false
	}
	l.open[client]++
	return true
}

func (l *limited) leave(client netip.Addr) {
	<-l.slots
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[client]--; l.open[client] == 0 {
		delete(l.open, client)
	}
}

// countedConn is counted until it is closed.
type countedConn struct {
	net.Conn
	leave func()
}

// Close closes the connection and uncounts it.
func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.leave()
	return err
}
