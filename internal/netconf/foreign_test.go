package netconf

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/sleep"
)

// watchForeign runs a watch that asks often until the test ends. late moves its
// clock.
func watchForeign(t *testing.T, n Network) (w *ForeignWatch, late *atomic.Int64) {
	t.Helper()
	late = new(atomic.Int64)
	account := dhcp.NewForeign(n.Lease.Address.Addr(), n.Link.MAC, func() time.Time { return time.Now().Add(time.Duration(late.Load())) })
	w = NewForeignWatch(n.Link, account, testLog(t))
	w.pace = askPace{first: []time.Duration{50 * time.Millisecond}, every: 300 * time.Millisecond, known: 100 * time.Millisecond, answer: 200 * time.Millisecond}
	looked := make(chan struct{})
	w.Looked = func() { close(looked) }
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
	if !inNetns(t) {
		return
	}
	w, late := watchForeign(t, alone(t))
	if w.Foreign.Present() {
		t.Fatalf("nobody is there but %v", w.Foreign.List())
	}
	stop := dnsmasq(t, "--interface=srv0", range1, "--no-ping")
	eventually(t, "a server is found", w.Foreign.Present)
	late.Add(int64(10 * time.Minute))
	n := 0
	w.Foreign.Observe(dhcp.Observation{Server: netip.MustParseAddr("192.168.50.1"), To: ether.MAC{2}}) // as of now
	eventually(t, "it answers again and again", func() bool { n++; return n > 50 || !w.Foreign.Present() })
	if !w.Foreign.Present() {
		t.Error("it is forgotten although it answers")
	}
	stop()
	eventually(t, "it is forgotten", func() bool { late.Add(int64(time.Second)); return !w.Foreign.Present() })
}

// A server for registered machines only answers no question of ours. It shows when
// we enquire for a machine that it knows, or when that machine names it; and it is
// there for as long as its machine is.
func TestNetnsForeignServerForOthersOnly(t *testing.T) {
	if !inNetns(t) {
		return
	}
	n := alone(t)
	const registered = "02:00:00:00:00:77"
	stop := dnsmasq(t, "--interface=srv0", range1, "--no-ping", "--dhcp-host="+registered, "--dhcp-ignore=tag:!known")
	w, late := watchForeign(t, n)
	mac, err := net.ParseMAC(registered)
	if err != nil {
		t.Fatal(err)
	}
	discover, err := dhcpv4.NewDiscovery(mac)
	if err != nil {
		t.Fatal(err)
	}
	if w.Foreign.Present() {
		t.Fatalf("it has answered us: %v", w.Foreign.List())
	}
	eventually(t, "it answers an enquiry", func() bool { w.Enquire(discover); return w.Foreign.Present() })
	stop() // nobody hears of it any more; its machine is still there
	eventually(t, "its machine is looked for", func() bool { return len(w.Foreign.Hidden()) > 0 })
	_ = sleep.For(t.Context(), time.Second) // one look takes 0.6 s
	late.Add(int64(10 * time.Minute))
	for range 20 {
		if _ = sleep.For(t.Context(), 100*time.Millisecond); !w.Foreign.Present() {
			t.Fatal("it is forgotten although its machine is there")
		}
	}
	run(t, "ip -n lan addr flush dev srv0")
	eventually(t, "it is forgotten", func() bool { return !w.Foreign.Present() })

	var far *packetSocket
	inLan(t, func() error {
		i, err := net.InterfaceByName("srv0")
		if err == nil {
			far, err = openPacketSocket(i.Index, etherTypeIPv4, nil)
		}
		return err
	})
	defer far.close()
	request, err := newQuestion(ether.MAC(mac), dhcpv4.MessageTypeRequest, newTransaction(),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 168, 50, 1))))
	if err != nil {
		t.Fatal(err)
	}
	overheard := make(chan ether.MAC, 1)
	ctx, enough := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- OverhearRequests(ctx, n.Link, func(p *dhcpv4.DHCPv4) {
			select {
			case overheard <- ether.MAC(p.ClientHWAddr):
			default:
			}
		})
	}()
	eventually(t, "a client names it", func() bool {
		_ = far.send(request.frame(ether.MAC(mac))) // the bridge may not forward yet
		return w.Foreign.Present() && len(overheard) > 0
	})
	enough()
	if got, err := <-overheard, <-ended; got != ether.MAC(mac) || err != nil {
		t.Errorf("a request of %s was overheard, want %s; %v", got, mac, err)
	}
}

// A node whose address is a boot host's moves with it: what a machine says to
// another server is sign enough to ask that one.
func TestNetnsNodesFollow(t *testing.T) {
	if !inNetns(t) {
		return
	}
	n := alone(t)
	n.Lease.Source, n.Lease.Viver, n.Lease.Server = SourceDHCP, true, netip.MustParseAddr("10.77.0.9")
	g := guardWith(t, GuardConfig{Network: n, AskEvery: 100 * time.Millisecond})
	var far *packetSocket
	inLan(t, func() error {
		i, err := net.InterfaceByName("srv0")
		if err == nil {
			far, err = openPacketSocket(i.Index, etherTypeIPv4, nil)
		}
		return err
	})
	defer far.close()
	dnsmasq(t, "--interface=srv0", range1, "--no-ping")
	other := ether.MAC{2, 0, 0, 0, 0, 0x77}
	request, err := newQuestion(other, dhcpv4.MessageTypeRequest, newTransaction(),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 168, 50, 1))))
	if err != nil {
		t.Fatal(err)
	}
	if _ = sleep.For(t.Context(), time.Second); g.Lease().Address != n.Lease.Address {
		t.Errorf("moved without a sign: %+v", g.Lease())
	}
	eventually(t, "another lease", func() bool {
		_ = far.send(request.frame(other)) // the bridge may not forward yet
		return g.Lease().Address != n.Lease.Address
	})
	moved(t, g, n.Lease.Address)
}
