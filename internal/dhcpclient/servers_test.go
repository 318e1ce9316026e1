package dhcpclient

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
	"viver.lan/internal/netbed/lantest"
)

func TestNetnsProbeFindsServers(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	// Two strangers on one link: dnsmasq, and dnsmasq that carries our mark.
	lantest.Run(t, "ip -n lan link add br0 type bridge")
	lantest.Run(t, "ip -n lan link set br0 up")
	lantest.Run(t, "ip -n lan link set far0 master br0")
	lantest.Run(t, "ip -n lan link set far0 up")
	for i, args := range [][]string{{}, {"--dhcp-option-force=224,viver"}} {
		lantest.Run(t, fmt.Sprintf("ip -n lan link add srv%d address 02:00:00:00:01:0%d type veth peer name port%d", i, i, i))
		lantest.Run(t, fmt.Sprintf("ip -n lan link set port%d master br0 up", i))
		lantest.Run(t, fmt.Sprintf("ip -n lan link set srv%d up", i))
		lantest.Run(t, fmt.Sprintf("ip -n lan addr add 10.9.%d.1/24 dev srv%d", i, i))
		lantest.DNSMasq(t, append(args, fmt.Sprintf("--interface=srv%d", i), fmt.Sprintf("--dhcp-range=10.9.%d.10,10.9.%d.20,255.255.255.0,120", i, i))...)
	}
	servers, err := FindServers(lantest.Within(t, 30*time.Second), bootnet.CardFrom(lantest.Card(t, "boot0")), lantest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	n := bootnet.Network{Offers: servers.Offers}
	if len(n.Offers) != 2 || len(n.Foreign()) != 1 {
		t.Fatalf("offers: %v, want one of a stranger and one of ours", n.Offers)
	}
	f := n.Foreign()[0]
	if f.Server != netip.MustParseAddr("10.9.0.1") || f.ServerMAC != (ether.MAC{2, 0, 0, 0, 1, 0}) || !netip.MustParsePrefix("10.9.0.0/24").Contains(f.Address) {
		t.Errorf("the stranger: %+v", f)
	}
}
