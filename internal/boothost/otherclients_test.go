package boothost

import (
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/dhcp"
)

// otherClients is how many machines perfdhcp plays: more than a room has, fewer
// than the servers' pools hold.
const otherClients = 100

// router is the namespace of the machine between us and the client.
const router = "router"

// TestNetnsBesideAnotherServer puts us beside each real server as proxyDHCP.
// It is a router that is also the switch:
//
//	[boot host] boot ---- port0 [router: bridge lan 10.77.0.1, DHCP] port1 ---- pc [client]
//
// Machines that boot hear of us, and the address from the other. A hundred that
// do not boot all get their addresses from it, as they would without us.
func TestNetnsBesideAnotherServer(t *testing.T) {
	if !inNetns(t, "dnsmasq", "dhcpd", "kea-dhcp4", "perfdhcp") {
		return
	}
	b := newBenchOn(t, (*bench).behindRouter, func(c *Config) { c.Mode = dhcp.Proxy })
	for _, s := range servers() {
		t.Run(s.name, func(t *testing.T) {
			s.start(t, b, router, "lan", "")
			b.speak(func(ask func(p *dhcpv4.DHCPv4, to string), answer func() *dhcpv4.DHCPv4) {
				p := b.recorded("ovmf-pxe-discover")
				p.ClientHWAddr[4] = s.name[0] // new to this server
				b.askBoth(t, p, ask, answer)
			})
			b.at("ip", "addr", "replace", "10.77.0.50/16", "dev", "pc") // perfdhcp speaks from an address
			// On a busy machine perfdhcp may end before it has read what was answered.
			var got exchanges
			for wait := time.Second; wait <= 16*time.Second && !got.complete(); wait *= 4 {
				before := b.requests(dhcp.OtherClient, "none")
				got = b.perfdhcp(t, wait)
				b.eventually("every other client to be heard by us", func() bool {
					return b.requests(dhcp.OtherClient, "none")-before == float64(got.discovers+got.requests)
				})
			}
			if !got.complete() {
				t.Errorf("beside us %+v, want all of them answered, and %d at least", got, otherClients)
			}
			b.at("ip", "addr", "del", "10.77.0.50/16", "dev", "pc")
		})
	}
	for _, answer := range []dhcpv4.MessageType{dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeAck, dhcpv4.MessageTypeNak} {
		if n := b.requests(dhcp.OtherClient, answer.String()); n != 0 {
			t.Errorf("%v other clients got an %s", n, answer)
		}
	}
}

// askBoth asks for an address and a boot program, which come from two servers.
func (b *bench) askBoth(t *testing.T, discover *dhcpv4.DHCPv4, ask func(p *dhcpv4.DHCPv4, to string), answer func() *dhcpv4.DHCPv4) {
	t.Helper()
	ask(discover, everyone)
	var theirs *dhcpv4.DHCPv4
	for range 2 {
		switch offer := answer(); offer.ServerIdentifier().String() {
		case selfIP:
			if !offer.YourIPAddr.IsUnspecified() || offer.IPAddressLeaseTime(0) != 0 || offer.BootFileName != "shimx64.efi" {
				t.Errorf("we offer %s", offer.Summary())
			}
		default:
			theirs = offer
		}
	}
	if theirs == nil || theirs.YourIPAddr.IsUnspecified() {
		t.Fatalf("no address from the other server: %v", theirs)
	}
	request := *discover
	request.Options = make(dhcpv4.Options)
	for code, value := range discover.Options {
		request.Options[code] = value
	}
	request.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeRequest))
	request.UpdateOption(dhcpv4.OptRequestedIPAddress(theirs.YourIPAddr))
	request.UpdateOption(dhcpv4.OptServerIdentifier(theirs.ServerIdentifier()))
	ask(&request, everyone)
	if ack := answer(); ack.MessageType() != dhcpv4.MessageTypeAck || !ack.YourIPAddr.Equal(theirs.YourIPAddr) {
		t.Errorf("the other server's answer to the REQUEST: %s", ack.Summary())
	}
}

// TestNetnsManyOtherClients lets perfdhcp play a hundred machines on a network that
// has no other server: they get nothing.
func TestNetnsManyOtherClients(t *testing.T) {
	if !inNetns(t, "perfdhcp") {
		return
	}
	b := newBench(t, nil)
	b.at("ip", "addr", "add", "10.77.0.50/16", "dev", "pc")
	got := b.perfdhcp(t, time.Second)
	if got.discovers < otherClients || got != (exchanges{discovers: got.discovers}) {
		t.Errorf("other clients: %+v, want %d questions at least and no answer", got, otherClients)
	}
	b.eventually("every other client to be heard", func() bool { return b.requests(dhcp.OtherClient, "none") == float64(got.discovers) })
	if m := b.host.Status().Machines; len(m) != 0 {
		t.Errorf("other clients are remembered: %v", m)
	}
	// perfdhcp speaks as a relay does, so firmware that it plays is on another
	// network, which our pool does not fit.
	got = b.perfdhcp(t, time.Second, "-o", "60,505845436c69656e743a417263683a3030303030", "-o", "93,0000")
	if got.discovers < otherClients || got != (exchanges{discovers: got.discovers}) {
		t.Errorf("firmware behind a relay: %+v, want %d questions at least and no answer", got, otherClients)
	}
	b.eventually("all that firmware to be heard", func() bool { return b.requests(dhcp.PXE, "none") == float64(got.discovers) })
}

// exchanges is what perfdhcp counted.
type exchanges struct{ discovers, offers, requests, acks int }

// complete tells whether every other client was answered all it asked.
func (e exchanges) complete() bool {
	return e.discovers >= otherClients && e == exchanges{e.discovers, e.discovers, e.discovers, e.discovers}
}

// perfdhcp lets each machine that it plays ask once, and at the end waits for the
// last answers. On a busy machine it plays some more, to keep its rate.
func (b *bench) perfdhcp(t *testing.T, wait time.Duration, options ...string) exchanges {
	t.Helper()
	n := strconv.Itoa(otherClients)
	last := strconv.FormatInt(wait.Microseconds(), 10)
	args := append([]string{"perfdhcp", "-4", "-l", "pc", "-B", "-r", n, "-R", n, "-n", n, "-W", last}, options...)
	out, _ := b.tryAt(append(args, "all")...) // it ends with 3 when some answers never came
	count := regexp.MustCompile(`(sent|received) packets: (\d+)`)
	var e exchanges
	found := count.FindAllStringSubmatch(out, -1)
	if len(found) != 4 {
		t.Fatalf("perfdhcp says:\n%s", out)
	}
	for i, to := range []*int{&e.discovers, &e.offers, &e.requests, &e.acks} {
		*to, _ = strconv.Atoi(found[i][2])
	}
	return e
}

// behindRouter joins the two ends by a router's bridge.
func (b *bench) behindRouter() {
	b.t.Helper()
	b.namespace(router)
	ip := func(args ...string) { b.run("ip", append([]string{"-n", router}, args...)...) }
	ip("link", "add", "lan", "type", "bridge")
	ip("addr", "add", "10.77.0.1/16", "dev", "lan")
	ip("link", "set", "lan", "up")
	b.run("ip", "link", "add", "boot", "address", hostMAC, "type", "veth", "peer", "name", "port0", "netns", router)
	b.run("ip", "link", "add", "port1", "netns", router, "type", "veth", "peer", "name", "pc", "address", clientMAC, "netns", client)
	for _, port := range []string{"port0", "port1"} {
		ip("link", "set", port, "master", "lan", "up")
	}
}
