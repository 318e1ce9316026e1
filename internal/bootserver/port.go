package bootserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"viver.lan/internal/cluster"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
)

// port is one that a server listens on.
type port struct {
	protocol string // "tcp" or "udp"
	number   uint16
	anywhere bool // at 0.0.0.0, for broadcasts, and not at the link's address
	use      string
	advice   string // when another program has it
}

const tftpPort = 69

// portsOf are those of a server, without that of DHCP and HTTP.
func portsOf() []port {
	const swarm = "an NBD volume (vfield) or a BitTorrent program? end that, or have it use another port"
	const gossip = "Docker's swarm and Consul use it, too: they have to listen on another address"
	return []port{
		{"udp", tftpPort, true, "TFTP", "switch that TFTP server off on this interface (dnsmasq: remove enable-tftp; tftpd-hpa: systemctl disable --now tftpd-hpa), or serve from another machine"},
		{"tcp", control.SwarmPort, false, "the swarm", swarm}, {"udp", control.SwarmPort, false, "the swarm", swarm},
		{"tcp", cluster.DefaultPort, false, "the membership", gossip}, {"udp", cluster.DefaultPort, false, "the membership", gossip},
	}
}

// dhcpPorts are those that a server needs unless network.dhcp is external.
func dhcpPorts() []port {
	const advice = "two DHCP servers on one machine cannot share it: serve from another machine of this network, beside which that server may stay; or have that server name the boot program, and set network.dhcp = \"external\" (docs/serve.md)"
	return []port{{"udp", dhcp.ServerPort, true, "DHCP", advice}, {"udp", dhcp.PXEPort, true, "proxyDHCP", advice}}
}

// httpPort returns the port to serve boot files on: the usual one, or where a web server
// has that, the one on which nodes serve.
func httpPort(ctx context.Context, l link) (uint16, error) {
	usual := port{"tcp", control.HTTPPort, false, "HTTP", ""}
	if usual.free(ctx, l) == nil {
		return usual.number, nil
	}
	other := port{"tcp", control.StandByPort, false, "HTTP", fmt.Sprintf("port %d is taken, too: one of them has to be free", usual.number)}
	return other.number, other.free(ctx, l)
}

// free says who has the port on a link, nil for nobody.
func (p port) free(ctx context.Context, l link) error {
	at := l.address.Addr()
	if p.anywhere {
		at = netip.IPv4Unspecified()
	}
	err := p.claim(ctx, l.Name, at)
	if err == nil {
		return nil
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s port %d (%s) on %s: %w", strings.ToUpper(p.protocol), p.number, p.use, l.Name, err)
	}
	return fmt.Errorf("%s port %d (%s) on %s is taken by %s: %s", strings.ToUpper(p.protocol), p.number, p.use, l.Name, holder("/proc", p), p.advice)
}

// claim takes the port as the services do, and gives it back.
func (p port) claim(ctx context.Context, iface string, at netip.Addr) error {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var bindErr error
		err := c.Control(func(fd uintptr) { bindErr = unix.BindToDevice(int(fd), iface) })
		return errors.Join(err, bindErr)
	}}
	where := netip.AddrPortFrom(at, p.number).String()
	if p.protocol == "udp" {
		conn, err := lc.ListenPacket(ctx, "udp4", where)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	l, err := lc.Listen(ctx, "tcp4", where)
	if err != nil {
		return err
	}
	return l.Close()
}

// holder names the process that listens on a port, for people.
func holder(proc string, p port) string {
	sockets := map[string]bool{}
	for _, table := range []string{p.protocol, p.protocol + "6"} {
		listening(filepath.Join(proc, "self/net", table), p, sockets)
	}
	fds, err := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "*"))
	if err != nil {
		return "another program"
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && sockets[to] {
			dir := filepath.Dir(filepath.Dir(fd))
			if name, err := os.ReadFile(filepath.Join(dir, "comm")); err == nil {
				return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), filepath.Base(dir))
			}
		}
	}
	return "another program"
}

// listening adds the sockets of one of the kernel's tables (proc_net(5)) that wait on a port,
// as the links of their descriptors name them.
func listening(table string, p port, sockets map[string]bool) {
	const local, state, inode = 1, 3, 9 // columns
	const waiting = "0A"                // TCP_LISTEN
	f, err := os.Open(table)
	if err != nil {
		return // without IPv6 there is none
	}
	defer f.Close()
	for scan := bufio.NewScanner(f); scan.Scan(); {
		column := strings.Fields(scan.Text())
		if len(column) <= inode || p.protocol == "tcp" && column[state] != waiting {
			continue
		}
		_, hex, _ := strings.Cut(column[local], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); err == nil && uint16(n) == p.number {
			sockets["socket:["+column[inode]+"]"] = true
		}
	}
}
