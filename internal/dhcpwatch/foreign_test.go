package dhcpwatch

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/netbed/lantest"
	"viver.lan/internal/packet"
	"viver.lan/internal/sleep"
)

// self is the machine's address.
const self = "10.77.0.5"

// quiet puts the machine on a network without a DHCP server, behind a switch.
func quiet(t *testing.T) bootnet.Card {
	t.Helper()
	lantest.Switch(t, "")
	card := lantest.Card(t, "boot0")
	lantest.Run(t, "ip addr add "+self+"/16 dev boot0")
	return bootnet.CardFrom(card)
}

// watchForeign runs a watch that asks often until the test ends. late moves its
// clock.
func watchForeign(t *testing.T, link bootnet.Card) (w *ForeignWatch, late *atomic.Int64) {
	t.Helper()
	late = new(atomic.Int64)
	account := dhcp.NewForeign(netip.MustParseAddr(self), link.MAC, func() time.Time { return time.Now().Add(time.Duration(late.Load())) })
	w = NewForeignWatch(link, account, lantest.Log(t))
	w.pace = askPace{first: []time.Duration{50 * time.Millisecond}, every: 300 * time.Millisecond, known: 100 * time.Millisecond, answer: 200 * time.Millisecond}
	looked := make(chan struct{})
	w.Found, w.Gone = func(dhcp.Observation) {}, func(netip.Addr) {}
	w.Ready = func() { close(looked) }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-looked
	return w, late
}

// A server that answers everybody is found by asking, and is gone when it answers
// no more, although its machine is there.
func TestNetnsForeignServerComesAndGoes(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	w, late := watchForeign(t, quiet(t))
	if w.foreign.Present() {
		t.Fatal("a server is there")
	}
	stop := lantest.DNSMasq(t, "--interface=srv0", lantest.Range, "--no-ping")
	lantest.Eventually(t, "a server is found", w.foreign.Present)
	late.Add(int64(10 * time.Minute))
	n := 0
	w.foreign.Observe(dhcp.Observation{Server: netip.MustParseAddr("192.168.50.1"), To: ether.MAC{2}}) // as of now
	lantest.Eventually(t, "it answers again and again", func() bool { n++; return n > 50 || !w.foreign.Present() })
	if !w.foreign.Present() {
		t.Error("it is forgotten although it answers")
	}
	stop()
	lantest.Eventually(t, "it is forgotten", func() bool { late.Add(int64(time.Second)); return !w.foreign.Present() })
}

// A server for registered machines only answers no question of ours. It shows when
// we enquire for a machine that it knows, or when that machine names it; and it is
// there for as long as its machine is.
func TestNetnsForeignServerForOthersOnly(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	link := quiet(t)
	const registered = "02:00:00:00:00:77"
	stop := lantest.DNSMasq(t, "--interface=srv0", lantest.Range, "--no-ping", "--dhcp-host="+registered, "--dhcp-ignore=tag:!known")
	w, late := watchForeign(t, link)
	mac, err := net.ParseMAC(registered)
	if err != nil {
		t.Fatal(err)
	}
	discover, err := dhcpv4.NewDiscovery(mac)
	if err != nil {
		t.Fatal(err)
	}
	if w.foreign.Present() {
		t.Fatal("it has answered us")
	}
	lantest.Eventually(t, "it answers an enquiry", func() bool { w.Enquire(discover); return w.foreign.Present() })
	stop() // nobody hears of it any more; its machine is still there
	lantest.Eventually(t, "its machine is looked for", func() bool { return len(w.foreign.Hidden()) > 0 })
	_ = sleep.For(t.Context(), time.Second) // one look takes 0.6 s
	late.Add(int64(10 * time.Minute))
	for range 20 {
		if _ = sleep.For(t.Context(), 100*time.Millisecond); !w.foreign.Present() {
			t.Fatal("it is forgotten although its machine is there")
		}
	}
	lantest.Run(t, "ip -n lan addr flush dev srv0")
	lantest.Eventually(t, "it is forgotten", func() bool { return !w.foreign.Present() })

	far, _ := lantest.FarSocket(t, "srv0", packet.EtherTypeIPv4, nil)
	request := lantest.RequestTo(t, netip.MustParseAddr("192.168.50.1"), ether.MAC(mac))
	overheard := make(chan ether.MAC, 1)
	ctx, enough := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Requests(ctx, link, func(p *dhcpv4.DHCPv4) {
			select {
			case overheard <- ether.MAC(p.ClientHWAddr):
			default:
			}
		})
	}()
	lantest.Eventually(t, "a client names it", func() bool {
		_ = far.Send(request) // the bridge may not forward yet
		return w.foreign.Present() && len(overheard) > 0
	})
	enough()
	if got, err := <-overheard, <-ended; got != ether.MAC(mac) || err != nil {
		t.Errorf("a request of %s was overheard, want %s; %v", got, mac, err)
	}
}
