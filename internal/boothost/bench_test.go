package boothost

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"

	"viver.lan/internal/dhcp"
	"viver.lan/internal/event"
)

// The tests below run in a user, network and mount namespace of their own, so
// they need no root and reach no real network:
//
//	[boot host] boot 10.77.3.9/16 ---veth--- pc [client, its own netns]

const (
	netnsEnv  = "VIVER_NETNS_TEST"
	hostMAC   = "52:54:00:ff:00:01"
	clientMAC = "52:54:00:aa:00:20"
	everyone  = "255.255.255.255:67"
	patience  = 2 * time.Minute // an upper bound, never reached when all is well
)

// inNetns runs the calling test again in new namespaces. It returns true there.
func inNetns(t *testing.T, tools ...string) bool {
	t.Helper()
	if os.Getenv(netnsEnv) == t.Name() {
		return true
	}
	for _, tool := range append(tools, "ip", "unshare", "nsenter") {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), netnsEnv+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("this kernel gives no user namespaces: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP: "+t.Name()) {
		t.Skipf("skipped inside:\n%s", out)
	}
	return false
}

// bench is a boot host and one client's network namespace.
type bench struct {
	t      *testing.T
	host   *Host
	image  *memImage
	reg    *prometheus.Registry
	client int // pid that holds the client's namespace open
	dir    string
}

func newBench(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	return newBenchOn(t, func(b *bench) {
		b.run("ip", "link", "add", "boot", "address", hostMAC, "type", "veth", "peer", "name", "pc", "address", clientMAC)
		b.run("ip", "link", "set", "pc", "netns", strconv.Itoa(b.client))
	}, change)
}

// newBenchOn is newBench with other cables than one between the two.
func newBenchOn(t *testing.T, cable func(*bench), change func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), reg: prometheus.NewRegistry()}
	b.client = b.namespace()
	b.run("ip", "link", "set", "lo", "up")
	cable(b)
	b.run("ip", "addr", "add", selfIP+"/16", "dev", "boot")
	b.run("ip", "link", "set", "boot", "up")
	b.at("ip", "link", "set", "lo", "up")

	cfg := testConfig(t)
	iface, err := net.InterfaceByName("boot")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Interface, cfg.Metrics = *iface, b.reg
	if change != nil {
		change(&cfg)
	}
	b.image = cfg.Image.(*memImage)
	events, sink := io.Pipe()
	cfg.Events = event.NewLog("test", func() time.Duration { return 0 }, sink)
	b.host = newHost(t, cfg)
	b.start(b.host, events)
	b.at("ip", "link", "set", "pc", "up")
	// Until the kernel has seen that a link carries, it drops what goes there.
	b.eventually("the links to carry", func() bool {
		return strings.Contains(b.run("ip", "-o", "link", "show", "boot"), "state UP") &&
			strings.Contains(b.at("ip", "-o", "link", "show", "pc"), "state UP")
	})
	return b
}

// namespace makes a network namespace that lives as long as the test, and returns
// the pid of the process that holds it.
func (b *bench) namespace() int {
	b.t.Helper()
	holder := exec.Command("unshare", "--net", "sleep", "600")
	holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := holder.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { holder.Process.Kill(); holder.Wait() })
	pid := holder.Process.Pid
	b.eventually("a new namespace", func() bool {
		ours, _ := os.Readlink("/proc/self/ns/net")
		theirs, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/net")
		return err == nil && theirs != ours
	})
	return pid
}

// start runs a host until the test ends and returns when all services have said
// that they serve.
func (b *bench) start(host *Host, events io.Reader) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return host.ServeFiles(ctx) })
		g.Go(func() error { return host.Invite(ctx) })
		ended <- g.Wait()
	}()
	b.t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				b.t.Errorf("the host ended with %v", err)
			}
		case <-time.After(patience):
			b.t.Error("the host did not end")
		}
	})
	want := len(host.files()) + len(host.invitations())
	ready := make(chan struct{})
	go func() { // ends with the process: the pipe is never closed
		lines := bufio.NewScanner(events)
		for n := 0; lines.Scan(); {
			var r event.Record
			if json.Unmarshal(lines.Bytes(), &r) != nil {
				continue
			}
			if e, err := r.Decode(); err == nil && e.(event.Service).State == event.Started {
				if n++; n == want {
					close(ready)
				}
			}
		}
	}()
	select {
	case <-ready:
	case err := <-ended:
		b.t.Fatalf("the host did not start: %v", err)
	case <-time.After(patience):
		b.t.Fatal("the host did not start in time")
	}
}

func (b *bench) run(name string, args ...string) string {
	b.t.Helper()
	out, err := b.try(name, args...)
	if err != nil {
		b.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func (b *bench) try(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = b.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// at runs a program on the client and must succeed; tryAt may fail.
func (b *bench) at(args ...string) string {
	b.t.Helper()
	return b.run("nsenter", append([]string{"-t", strconv.Itoa(b.client), "-n"}, args...)...)
}

func (b *bench) tryAt(args ...string) (string, error) {
	return b.try("nsenter", append([]string{"-t", strconv.Itoa(b.client), "-n"}, args...)...)
}

// inside runs fn on a thread that has moved to the client's namespace.
func (b *bench) inside(fn func() error) {
	b.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked, so the thread ends with fn
		h, err := netns.GetFromPid(b.client)
		if err == nil {
			defer h.Close()
			err = netns.Set(h)
		}
		if err == nil {
			err = fn()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		b.t.Fatal(err)
	}
}

// speak gives fn the client's DHCP port.
func (b *bench) speak(fn func(ask func(p *dhcpv4.DHCPv4, to string), answer func() *dhcpv4.DHCPv4)) {
	b.t.Helper()
	var conn net.PacketConn
	b.inside(func() (err error) { // a socket stays in the namespace it was made in
		lc := net.ListenConfig{Control: bindTo("pc")}
		conn, err = lc.ListenPacket(b.t.Context(), "udp4", "0.0.0.0:68")
		return err
	})
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(patience))
	ask := func(p *dhcpv4.DHCPv4, to string) {
		b.t.Helper()
		if _, err := conn.WriteTo(p.ToBytes(), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))); err != nil {
			b.t.Fatal(err)
		}
	}
	answer := func() *dhcpv4.DHCPv4 {
		b.t.Helper()
		buf := make([]byte, maxPacket)
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			b.t.Fatal(err)
		}
		p, err := dhcpv4.FromBytes(buf[:n])
		if err != nil {
			b.t.Fatal(err)
		}
		return p
	}
	fn(ask, answer)
}

func (b *bench) eventually(what string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// requests returns how many requests of a kind got an answer.
func (b *bench) requests(client dhcp.Kind, answer string) float64 {
	families, err := b.reg.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "viver_boothost_dhcp_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() { // labels are sorted: answer, client
			if m.GetLabel()[0].GetValue() == answer && m.GetLabel()[1].GetValue() == string(client) {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}
