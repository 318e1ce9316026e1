package bootbench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"viver.lan/internal/sleep"
	"viver.lan/qemu-tests/harness/lan"
	"viver.lan/qemu-tests/harness/outsider"
)

// Of the classic server.
const (
	serverIP   = "10.78.0.1"
	serverMAC  = "02:00:00:00:78:01"
	serverIPv6 = "fd00:78::1/64"
	// console is what VIVER's machines have, too (qemu-tests/baselines/viver.toml).
	// A kernel whose timer is late, as in one of nine machines on two processors,
	// panics at its check of the IO-APIC: there is none in these machines.
	console = " console=ttyS0,115200 console=tty0 no_timer_check"
)

// ServeVerb is the argument with which the program is the classic server.
const ServeVerb = "serve"

// readyLine is what the server prints when it serves.
const readyLine = "the classic server serves"

// classic is a boot server as one sets it up without VIVER, on the host itself,
// not in a machine: dnsmasq, an HTTP server, nbdkit.
type classic struct {
	program *outsider.Program
	dir     string
}

// kernelArguments of a system that boots without VIVER.
func kernelArguments(system string) string {
	switch system {
	case Disk:
		return "root=/dev/vda rw" + console
	case NBD:
		return "root=/dev/nbd0 nbdroot=" + serverIP + ",root,nbd0 rootfstype=squashfs ro ip=dhcp overlayroot=tmpfs" + console
	case Live:
		return fmt.Sprintf("boot=live fetch=http://%s:%d/root.squashfs ip=dhcp", serverIP, rootHTTPPort) + console
	}
	return ""
}

// rootDevice is the block device that the root is read from.
func rootDevice(system string) string {
	return map[string]string{Disk: "vda", NBD: "nbd0", Live: "loop0", VIVER: "nbd0"}[system]
}

// startClassic starts the server for one of the systems and waits until it
// serves.
func startClassic(ctx context.Context, sw *lan.Switch, m *meters, dir, baselines, root, system string) (*classic, error) {
	www := filepath.Join(dir, "www")
	rootDir := filepath.Join(dir, "root")
	if err := errors.Join(os.MkdirAll(www, 0o755), os.MkdirAll(rootDir, 0o755)); err != nil {
		return nil, err
	}
	script := fmt.Sprintf("#!ipxe\nkernel http://%s/vmlinuz initrd=initrd.img %s\ninitrd http://%s/initrd.img\nboot\n", serverIP, kernelArguments(system), serverIP)
	for link, target := range map[string]string{
		filepath.Join(www, "vmlinuz"):           filepath.Join(baselines, "vmlinuz"),
		filepath.Join(www, "initrd.img"):        filepath.Join(baselines, "initrd-"+system+".img"),
		filepath.Join(rootDir, "root.squashfs"): root,
	} {
		target, err := filepath.Abs(target)
		if err != nil {
			return nil, err
		}
		if err := os.Symlink(target, link); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(www, "boot.ipxe"), []byte(script), 0o644); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := outsider.Run(sw, outsider.Config{Name: "server", MAC: serverMAC, Address: netip.MustParsePrefix(serverIP + "/24"), Mangle: m.see}, self, ServeVerb, dir)
	if err != nil {
		return nil, err
	}
	c := &classic{program: p, dir: dir}
	return c, c.wait(ctx)
}

// wait returns when the server serves.
func (c *classic) wait(ctx context.Context) error {
	const patience = time.Minute
	for end := time.Now().Add(patience); !strings.Contains(c.program.Log(), readyLine); {
		if time.Now().After(end) {
			return fmt.Errorf("the classic server did not begin to serve in %v; it printed:\n%s", patience, c.program.Log())
		}
		if err := sleep.For(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func (c *classic) close() error {
	err := c.program.Close()
	if err != nil {
		err = fmt.Errorf("%w; it printed:\n%s", err, c.program.Log())
	}
	return errors.Join(err, os.WriteFile(filepath.Join(c.dir, "server.log"), []byte(c.program.Log()), 0o644))
}

// Serve is the classic server: it runs in namespaces of its own, with the card
// that package outsider made, until it is killed.
func Serve(ctx context.Context, dir string) error {
	if err := addIPv6(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	// Router advertisements: without one, iPXE waits for a router for 15 s.
	g.Go(func() error {
		return daemon(ctx, "dnsmasq", "--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null", "--port=0", "--user=", "--group=", "--pid-file=",
			"--interface="+outsider.LinkName, "--dhcp-leasefile="+filepath.Join(dir, "leases"), "--no-ping",
			"--dhcp-range=10.78.0.100,10.78.0.200,255.255.255.0,1h", "--dhcp-boot=http://"+serverIP+"/boot.ipxe",
			"--enable-ra", "--dhcp-range=fd00:78::,ra-only,64")
	})
	g.Go(func() error {
		return daemon(ctx, "nbdkit", "--foreground", "--readonly", "--ipaddr", serverIP, "--port", fmt.Sprint(nbdPort), "file", filepath.Join(dir, "root/root.squashfs"))
	})
	for port, what := range map[int]string{httpPort: "www", rootHTTPPort: "root"} {
		l, err := net.Listen("tcp", net.JoinHostPort(serverIP, fmt.Sprint(port)))
		if err != nil {
			return err
		}
		g.Go(func() error { return http.Serve(l, http.FileServer(http.Dir(filepath.Join(dir, what)))) })
	}
	g.Go(func() error { return announce(ctx) })
	return g.Wait()
}

// announce says that all serve, once the NBD server does.
func announce(ctx context.Context) error {
	for {
		conn, err := net.Dial("tcp", net.JoinHostPort(serverIP, fmt.Sprint(nbdPort)))
		if err == nil {
			fmt.Println(readyLine)
			return conn.Close()
		}
		if err := sleep.For(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

// daemon runs a program that should not end.
func daemon(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return fmt.Errorf("%s ended: %w", name, errors.Join(cmd.Run(), errors.New("it should serve")))
}

func addIPv6() error {
	link, err := netlink.LinkByName(outsider.LinkName)
	if err != nil {
		return fmt.Errorf("the card %s: %w", outsider.LinkName, err)
	}
	address, err := netlink.ParseAddr(serverIPv6)
	if err != nil {
		return err
	}
	address.Flags = 0x02 // IFA_F_NODAD: it can be used at once
	return netlink.AddrAdd(link, address)
}
