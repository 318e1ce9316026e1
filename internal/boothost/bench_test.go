package boothost

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"

	"viver.lan/internal/dhcp"
	"viver.lan/internal/event"
	"viver.lan/internal/metrics"
	"viver.lan/internal/netbed"
	"viver.lan/internal/netbed/netbedtest"
)

// The tests below run in namespaces of their own, so they need no root and reach
// no real network:
//
//	[boot host] boot 10.77.3.9/16 ---veth--- pc [namespace "client"]

const (
	client    = "client" // its namespace
	hostMAC   = "52:54:00:ff:00:01"
	clientMAC = "52:54:00:aa:00:20"
	everyone  = "255.255.255.255:67"
	patience  = 2 * time.Minute // an upper bound, never reached when all is well
)

// inNetns runs the calling test again in new namespaces. It returns true there.
func inNetns(t *testing.T, tools ...string) bool {
	t.Helper()
	netbedtest.Need(t, append(tools, "ip", "nsenter")...)
	return netbedtest.Enter(t)
}

// bench is a boot host, and a client in a network namespace of its own.
type bench struct {
	t       *testing.T
	host    *Host
	image   *memImage
	metrics *metrics.Set
	dir     string
	spaces  []string // namespaces beside our own
}

func newBench(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	return newBenchOn(t, func(b *bench) {
		b.run("ip", "link", "add", "boot", "address", hostMAC, "type", "veth", "peer", "name", "pc", "address", clientMAC)
		b.run("ip", "link", "set", "pc", "netns", client)
	}, change)
}

// newBenchOn is newBench with other cables than one between the two.
func newBenchOn(t *testing.T, cable func(*bench), change func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), metrics: new(metrics.Set)}
	b.namespace(client)
	b.run("ip", "link", "set", "lo", "up")
	cable(b)
	b.run("ip", "addr", "add", selfIP+"/16", "dev", "boot")
	b.run("ip", "link", "set", "boot", "up")

	cfg := testConfig(t)
	iface, err := net.InterfaceByName("boot")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Interface, cfg.Metrics = *iface, b.metrics
	if change != nil {
		change(&cfg)
	}
	b.image = cfg.Image.(*memImage)
	events, sink := io.Pipe()
	cfg.Events = event.NewLog("test", func() time.Duration { return 0 }, sink)
	b.host = newHost(t, cfg)
	b.start(b.host, events)
	b.at("ip", "link", "set", "pc", "up")
	b.eventually("the links to carry", func() bool {
		return strings.Contains(b.run("ip", "-o", "link", "show", "boot"), "state UP") &&
			strings.Contains(b.at("ip", "-o", "link", "show", "pc"), "state UP") && b.settled()
	})
	return b
}

// settled tells whether the kernel has seen of each link that it carries. Until
// then it drops what goes there, also at a bridge.
func (b *bench) settled() bool {
	b.t.Helper()
	links := b.run("ip", "-d", "-o", "link", "show")
	for _, name := range b.spaces {
		links += b.run("ip", "-n", name, "-d", "-o", "link", "show")
	}
	for link := range strings.Lines(links) {
		waits := strings.Contains(link, "NO-CARRIER") ||
			strings.Contains(link, "bridge_slave") && !strings.Contains(link, "bridge_slave state forwarding")
		if waits && strings.Contains(link, "LOWER_UP") {
			return false
		}
	}
	return true
}

// namespace makes a network namespace with a name (ip-netns(8)), which lives as
// long as the test.
func (b *bench) namespace(name string) {
	b.t.Helper()
	b.run("ip", "netns", "add", name)
	b.run("ip", "-n", name, "link", "set", "lo", "up")
	b.spaces = append(b.spaces, name)
}

// start runs a host until the test ends and returns when all services have said
// that they serve.
func (b *bench) start(host *Host, events io.Reader) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return host.ServeFiles(ctx) })
		g.Go(func() error { return host.ServeNetboot(ctx) })
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
	want := len(host.fileServices()) + len(host.netbootServices())
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

// in returns the arguments with which nsenter(1) runs a program in a namespace.
func in(namespace string, program ...string) []string {
	return append([]string{"--net=/run/netns/" + namespace, "--"}, program...)
}

// at runs a program on the client and must succeed; tryAt may fail.
func (b *bench) at(args ...string) string {
	b.t.Helper()
	return b.run("nsenter", in(client, args...)...)
}

func (b *bench) tryAt(args ...string) (string, error) {
	return b.try("nsenter", in(client, args...)...)
}

// speak gives fn the client's DHCP port.
func (b *bench) speak(fn func(ask func(p *dhcpv4.DHCPv4, to string), answer func() *dhcpv4.DHCPv4)) {
	b.t.Helper()
	var conn net.PacketConn
	err := netbed.In(client, func() (err error) { // a socket stays in the namespace it was made in
		lc := net.ListenConfig{Control: bindTo("pc")}
		conn, err = lc.ListenPacket(b.t.Context(), "udp4", "0.0.0.0:68")
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
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
			b.t.Fatalf("no success waiting for %s", what)
		}
	}
}

// requests returns how many requests of a kind got an answer.
func (b *bench) requests(client dhcp.Kind, answer string) float64 {
	page := httptest.NewRecorder()
	b.metrics.ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(page.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, m := range families["viver_boothost_dhcp_requests_total"].GetMetric() { // labels: answer, client
		if m.GetLabel()[0].GetValue() == answer && m.GetLabel()[1].GetValue() == string(client) {
			return m.GetCounter().GetValue()
		}
	}
	return 0
}
