package netconf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/netbed"
	"viver.lan/internal/netbed/netbedtest"
	"viver.lan/internal/sleep"
)

// The tests in this file run in a network of their own:
//
//	this namespace            namespace "lan"
//	boot0 ------------------- far0     a stranger's DHCP server, or another machine
//	boot1 ------------------- far1     nobody, unless a test says otherwise
//
// So nothing here needs root or touches the host's network.
func inNetns(t *testing.T, tools ...string) bool {
	t.Helper()
	netbedtest.Need(t, append(tools, "ip", "dnsmasq")...)
	t.Parallel() // the process inside does the work, and mostly it waits
	if !netbedtest.Enter(t) {
		return false
	}
	run(t, "ip netns add lan")
	for i := range 2 {
		run(t, fmt.Sprintf("ip link add boot%d address 52:54:00:00:00:0%d type veth peer name far%d address 02:00:00:00:00:0%d netns lan", i, i+1, i, i+1))
		run(t, fmt.Sprintf("ip -n lan link set far%d up", i))
	}
	run(t, "ip -n lan link set lo up")
	run(t, "ip -n lan addr add 192.168.50.1/24 dev far0")
	return true
}

// inLan runs f at the far end; a socket stays where it was opened.
func inLan(t *testing.T, f func() error) {
	t.Helper()
	if err := netbed.In("lan", f); err != nil {
		t.Fatalf("at the far end: %v", err)
	}
}

func run(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// dnsmasq serves addresses on a far end until the test or stop ends it.
func dnsmasq(t *testing.T, args ...string) (stop func()) {
	t.Helper()
	base := []string{"netns", "exec", "lan", "dnsmasq", "--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null",
		"--port=0", "--bind-interfaces", "--user=", "--group=", "--pid-file=", "--log-dhcp",
		"--dhcp-leasefile=" + filepath.Join(t.TempDir(), "leases"),
		"--dhcp-option=option:dns-server,192.168.50.1", "--domain=lab.example"}
	cmd := exec.Command("ip", append(base, args...)...)
	log := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = sync.OnceFunc(func() {
		select {
		case err := <-ended:
			t.Errorf("dnsmasq ended by itself: %v", err)
		default:
			_ = cmd.Process.Kill()
			<-ended
		}
		t.Logf("dnsmasq:\n%s", log)
	})
	t.Cleanup(stop)
	return stop
}

const (
	onFar0 = "--interface=far0"
	range1 = "--dhcp-range=192.168.50.100,192.168.50.150,255.255.255.0,120"
)

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func upLink(t *testing.T, name string) Link {
	t.Helper()
	links, err := Links()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Name == name {
			if err := LinkUp(l.Index); err != nil {
				t.Fatal(err)
			}
			return l
		}
	}
	t.Fatalf("no link %s among %v", name, links)
	return Link{}
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx := within(t, 30*time.Second)
	for !holds() {
		if sleep.For(ctx, 20*time.Millisecond) != nil {
			t.Fatalf("never: %s\n%s%s", what, run(t, "ip addr"), run(t, "ip route"))
		}
	}
}

func TestNetnsLinks(t *testing.T) {
	if !inNetns(t) {
		return
	}
	run(t, "ip link add br0 type bridge")
	links, err := Links()
	if err != nil || len(links) != 2 || links[0].Name == links[1].Name || links[0].Carrier {
		t.Fatalf("Links = %v, %v; want boot0 and boot1", links, err)
	}
	boot1 := upLink(t, "boot1")
	if err := WaitCarrier(within(t, 10*time.Second), boot1.Index); err != nil {
		t.Error(err)
	}
	run(t, "ip -n lan link set far1 down")
	eventually(t, "carrier lost", func() bool {
		links, err := Links()
		return err == nil && !links[0].Carrier && !links[1].Carrier
	})
	err = WaitCarrier(within(t, 200*time.Millisecond), boot1.Index)
	if err == nil || !strings.Contains(err.Error(), "boot1") || !strings.Contains(err.Error(), "cable") {
		t.Errorf("WaitCarrier = %v, want a sentence about the cable of boot1", err)
	}
	_, err = WaitLinks(within(t, 200*time.Millisecond), Choice{MAC: ether.MAC{9}})
	if err == nil || !strings.Contains(err.Error(), "BOOTIF") || !strings.Contains(err.Error(), "52:54:00:00:00:01") {
		t.Errorf("WaitLinks = %v, want what was asked for and what is there", err)
	}
}

func TestNetnsProbeFindsServers(t *testing.T) {
	if !inNetns(t) {
		return
	}
	// Two strangers on one link: dnsmasq, and dnsmasq that carries our mark.
	run(t, "ip -n lan link add br0 type bridge")
	run(t, "ip -n lan link set br0 up")
	run(t, "ip -n lan link set far0 master br0")
	run(t, "ip -n lan link set far0 up")
	for i, args := range [][]string{{}, {"--dhcp-option-force=224,viver"}} {
		run(t, fmt.Sprintf("ip -n lan link add srv%d address 02:00:00:00:01:0%d type veth peer name port%d", i, i, i))
		run(t, fmt.Sprintf("ip -n lan link set port%d master br0 up", i))
		run(t, fmt.Sprintf("ip -n lan link set srv%d up", i))
		run(t, fmt.Sprintf("ip -n lan addr add 10.9.%d.1/24 dev srv%d", i, i))
		dnsmasq(t, append(args, fmt.Sprintf("--interface=srv%d", i), fmt.Sprintf("--dhcp-range=10.9.%d.10,10.9.%d.20,255.255.255.0,120", i, i))...)
	}
	servers, err := FindServers(within(t, 30*time.Second), upLink(t, "boot0"), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	n := Network{Offers: servers.Offers}
	if len(n.Offers) != 2 || len(n.Foreign()) != 1 {
		t.Fatalf("offers: %v, want one of a stranger and one of ours", n.Offers)
	}
	f := n.Foreign()[0]
	if f.Server != netip.MustParseAddr("10.9.0.1") || f.ServerMAC != (ether.MAC{2, 0, 0, 0, 1, 0}) || !netip.MustParsePrefix("10.9.0.0/24").Contains(f.Address) {
		t.Errorf("the stranger: %+v", f)
	}
}

func TestNetnsConnectByDHCP(t *testing.T) {
	if !inNetns(t) {
		return
	}
	dnsmasq(t, onFar0, range1, "--dhcp-boot=vmlinuz,host,192.168.50.77", "--dhcp-host=52:54:00:00:00:01,node-1,192.168.50.111")
	// No BOOTIF: boot1 has a carrier too, but nobody answers there.
	n, err := Connect(within(t, 60*time.Second), Config{Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	l := n.Lease
	if n.Link.Name != "boot0" || l.Address != netip.MustParsePrefix("192.168.50.111/24") || l.Hostname != "node-1" ||
		l.BootHost != netip.MustParseAddr("192.168.50.77") || l.Domain != "lab.example" || l.Viver ||
		l.ServerMAC != (ether.MAC{2, 0, 0, 0, 0, 1}) || l.Expires != 120*time.Second || len(l.DNS) != 1 {
		t.Errorf("network: %+v", n)
	}
	if out := run(t, "ip route"); !strings.Contains(out, "default via 192.168.50.1 dev boot0") || !strings.Contains(out, "192.168.50.0/24 dev boot0") {
		t.Errorf("routes:\n%s", out)
	}
	// Nobody listens on the far end's discard port, and it says so to us.
	dialer := net.Dialer{}
	if _, err := dialer.DialContext(within(t, 10*time.Second), "tcp4", "192.168.50.1:9"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the far end: %v", err)
	}

	// A BOOTIF that fits no card is said and does not count.
	said, log := newJournal(t)
	again, err := Connect(within(t, 60*time.Second), Config{BootIF: ether.MAC{9}, BootIFWait: 300 * time.Millisecond, Log: log})
	if err != nil || again.Link.Name != "boot0" || again.Lease.Address != l.Address {
		t.Errorf("with a wrong BOOTIF: %+v, %v", again, err)
	}
	for _, want := range []string{"BOOTIF", "09:00:00:00:00:00", "boot0", "boot1"} {
		if !said.Says(want) {
			t.Errorf("%q is not said of a wrong BOOTIF", want)
		}
	}
}

func TestNetnsConnectSaysWhatIsMissing(t *testing.T) {
	if !inNetns(t) {
		return
	}
	run(t, "ip -n lan link set far1 down")
	_, err := Connect(within(t, 3*time.Second), Config{Log: testLog(t)})
	for _, want := range []string{"boot0", "no lease", "boot1", "cable"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Connect = %v, want %q in it", err, want)
		}
	}
}

func TestNetnsFirstNode(t *testing.T) {
	if !inNetns(t) {
		return
	}
	// The machine's first candidate is taken by another machine.
	mac := ether.MAC{0x52, 0x54, 0, 0, 0, 1}
	taken, second := dhcp.Candidate(DefaultPool(), mac, 0), dhcp.Candidate(DefaultPool(), mac, 1)
	run(t, fmt.Sprintf("ip -n lan addr add %s/16 dev far0", taken))
	n, err := Connect(within(t, 60*time.Second), Config{First: true, BootIF: mac, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	if n.Link.Name != "boot0" || n.Lease.Address != netip.PrefixFrom(second, 16) || n.Lease.Source != SourceSelf || len(n.Offers) != 0 || n.Lease.Expires != 0 {
		t.Errorf("network: %+v, want %s because %s is taken", n, second, taken)
	}
	run(t, fmt.Sprintf("ip netns exec lan ip route get %s", second))
	by, used, err := InUse(within(t, 10*time.Second), n.Link, taken)
	if err != nil || !used || by != (ether.MAC{2, 0, 0, 0, 0, 1}) {
		t.Errorf("InUse(%s) = %v, %v, %v", taken, by, used, err)
	}
}

func TestNetnsFirstNodeBesideForeignServer(t *testing.T) {
	if !inNetns(t) {
		return
	}
	dnsmasq(t, onFar0, range1)
	n, err := Connect(within(t, 60*time.Second), Config{First: true, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	if len(n.Foreign()) != 1 || n.Link.Name != "boot0" || n.Lease.Source != SourceDHCP || n.Lease.Server != netip.MustParseAddr("192.168.50.1") {
		t.Errorf("network: %+v, want the foreign server seen and its address used", n)
	}
}

// The usual range is given out on the other card's network, and the next one
// used by somebody on this one, who only shows by asking for his router.
func TestNetnsFirstNodeChoosesAFreeRange(t *testing.T) {
	if !inNetns(t) {
		return
	}
	run(t, "ip -n lan addr add 10.77.4.1/24 dev far1")
	dnsmasq(t, "--interface=far1", "--dhcp-range=10.77.4.10,10.77.4.20,255.255.255.0,120")
	run(t, "ip -n lan addr add 172.29.8.8/16 dev far0")
	asker := exec.CommandContext(t.Context(), "ip", "netns", "exec", "lan", "bash", "-c", "while sleep 0.5; do echo >/dev/udp/172.29.0.1/9; done")
	if err := asker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = asker.Wait() }) // it ends with the test's context
	n, err := Connect(within(t, 60*time.Second), Config{First: true, BootIF: ether.MAC{0x52, 0x54, 0, 0, 0, 1}, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	if want := pools()[2]; n.Link.Name != "boot0" || n.Lease.Source != SourceSelf || n.Lease.Address.Masked() != want || len(n.Foreign()) != 0 {
		t.Errorf("network: %+v, want an address of %s, and nothing foreign on this link", n, want)
	}
}

func TestNetnsStaticAddress(t *testing.T) {
	if !inNetns(t) {
		return
	}
	ip, err := ParseIP("10.5.0.9:10.5.0.2:10.5.0.1:255.255.255.0:node9:boot1:none:10.5.0.1")
	if err != nil {
		t.Fatal(err)
	}
	n, err := Connect(within(t, 30*time.Second), Config{IP: ip, Log: testLog(t)})
	if err != nil || n.Link.Name != "boot1" || n.Lease.Hostname != "node9" {
		t.Fatalf("Connect = %+v, %v", n, err)
	}
	if out := run(t, "ip route"); !strings.Contains(out, "default via 10.5.0.1 dev boot1") {
		t.Errorf("routes:\n%s", out)
	}
}
