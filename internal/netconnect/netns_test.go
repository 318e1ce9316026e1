package netconnect

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/netbed/lantest"
)

func TestNetnsConnectByDHCP(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	lantest.DNSMasq(t, lantest.OnFar0, lantest.Range, "--dhcp-boot=vmlinuz,host,192.168.50.77", "--dhcp-host=52:54:00:00:00:01,node-1,192.168.50.111")
	// No BOOTIF: boot1 has a carrier too, but nobody answers there.
	n, err := Connect(lantest.Within(t, 60*time.Second), Config{Log: lantest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	l := n.Lease
	if n.Card.Name != "boot0" || l.Address != netip.MustParsePrefix("192.168.50.111/24") || l.Hostname != "node-1" ||
		l.BootHost != netip.MustParseAddr("192.168.50.77") || l.Domain != "lab.example" || l.Viver ||
		l.ServerMAC != (ether.MAC{2, 0, 0, 0, 0, 1}) || l.Expires != 120*time.Second || len(l.DNS) != 1 {
		t.Errorf("network: %+v", n)
	}
	if out := lantest.Run(t, "ip route"); !strings.Contains(out, "default via 192.168.50.1 dev boot0") || !strings.Contains(out, "192.168.50.0/24 dev boot0") {
		t.Errorf("routes:\n%s", out)
	}
	// Nobody listens on the far end's discard port, and it says so to us.
	dialer := net.Dialer{}
	if _, err := dialer.DialContext(lantest.Within(t, 10*time.Second), "tcp4", "192.168.50.1:9"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the far end: %v", err)
	}

	// A BOOTIF that fits no card is said and does not count.
	said, log := lantest.Journal(t)
	again, err := Connect(lantest.Within(t, 60*time.Second), Config{BootIF: ether.MAC{9}, cardWait: 300 * time.Millisecond, Log: log})
	if err != nil || again.Card.Name != "boot0" || again.Lease.Address != l.Address {
		t.Errorf("with a wrong BOOTIF: %+v, %v", again, err)
	}
	for _, want := range []string{"BOOTIF", "09:00:00:00:00:00", "boot0", "boot1"} {
		if !said.Says(want) {
			t.Errorf("%q is not said of a wrong BOOTIF", want)
		}
	}
}

func TestNetnsConnectSaysWhatIsMissing(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	lantest.Run(t, "ip -n lan link set far1 down")
	_, err := Connect(lantest.Within(t, 3*time.Second), Config{Log: lantest.Log(t)})
	for _, want := range []string{"boot0", "no lease", "boot1", "cable"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Connect = %v, want %q in it", err, want)
		}
	}
}

func TestNetnsFirstNode(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	// The machine's first candidate is taken by another machine.
	mac := ether.MAC{0x52, 0x54, 0, 0, 0, 1}
	taken, second := dhcp.Candidate(defaultPool(), mac, 0), dhcp.Candidate(defaultPool(), mac, 1)
	lantest.Run(t, fmt.Sprintf("ip -n lan addr add %s/16 dev far0", taken))
	n, err := Connect(lantest.Within(t, 60*time.Second), Config{First: true, BootIF: mac, Log: lantest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	if n.Card.Name != "boot0" || n.Lease.Address != netip.PrefixFrom(second, 16) || n.Lease.Source != bootnet.SourceSelf || len(n.Offers) != 0 || n.Lease.Expires != 0 {
		t.Errorf("network: %+v, want %s because %s is taken", n, second, taken)
	}
	lantest.Run(t, fmt.Sprintf("ip netns exec lan ip route get %s", second))
	by, used, err := bootnet.InUse(lantest.Within(t, 10*time.Second), n.Card, taken)
	if err != nil || !used || by != (ether.MAC{2, 0, 0, 0, 0, 1}) {
		t.Errorf("InUse(%s) = %v, %v, %v", taken, by, used, err)
	}
}

func TestNetnsFirstNodeBesideForeignServer(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	lantest.DNSMasq(t, lantest.OnFar0, lantest.Range)
	n, err := Connect(lantest.Within(t, 60*time.Second), Config{First: true, Log: lantest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	if len(n.Foreign()) != 1 || n.Card.Name != "boot0" || n.Lease.Source != bootnet.SourceDHCP || n.Lease.Server != netip.MustParseAddr("192.168.50.1") {
		t.Errorf("network: %+v, want the foreign server seen and its address used", n)
	}
}

// The usual range is given out on the other card's network, and the next one
// used by somebody on this one, who only shows by asking for his router.
func TestNetnsFirstNodeChoosesAFreeRange(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	lantest.Run(t, "ip -n lan addr add 10.77.4.1/24 dev far1")
	lantest.DNSMasq(t, "--interface=far1", "--dhcp-range=10.77.4.10,10.77.4.20,255.255.255.0,120")
	lantest.Run(t, "ip -n lan addr add 172.29.8.8/16 dev far0")
	asker := exec.CommandContext(t.Context(), "ip", "netns", "exec", "lan", "bash", "-c", "while sleep 0.5; do echo >/dev/udp/172.29.0.1/9; done")
	if err := asker.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = asker.Wait() }) // it ends with the test's context
	n, err := Connect(lantest.Within(t, 60*time.Second), Config{First: true, BootIF: ether.MAC{0x52, 0x54, 0, 0, 0, 1}, Log: lantest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	if want := pools()[2]; n.Card.Name != "boot0" || n.Lease.Source != bootnet.SourceSelf || n.Lease.Address.Masked() != want || len(n.Foreign()) != 0 {
		t.Errorf("network: %+v, want an address of %s, and nothing foreign on this link", n, want)
	}
}

func TestNetnsStaticAddress(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	ip, err := ParseIP("10.5.0.9:10.5.0.2:10.5.0.1:255.255.255.0:node9:boot1:none:10.5.0.1")
	if err != nil {
		t.Fatal(err)
	}
	n, err := Connect(lantest.Within(t, 30*time.Second), Config{IP: ip, Log: lantest.Log(t)})
	if err != nil || n.Card.Name != "boot1" || n.Lease.Hostname != "node9" {
		t.Fatalf("Connect = %+v, %v", n, err)
	}
	if out := lantest.Run(t, "ip route"); !strings.Contains(out, "default via 10.5.0.1 dev boot1") {
		t.Errorf("routes:\n%s", out)
	}
}

func TestNetnsNoCardFits(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	_, err := waitCards(lantest.Within(t, 200*time.Millisecond), cardFilter{MAC: ether.MAC{9}})
	if err == nil || !strings.Contains(err.Error(), "BOOTIF") || !strings.Contains(err.Error(), "52:54:00:00:00:01") {
		t.Errorf("WaitLinks = %v, want what was asked for and what is there", err)
	}
}
