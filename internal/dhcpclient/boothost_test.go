package dhcpclient

import (
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/hostname"
	"viver.lan/internal/packet"
)

// TestBothEndsOfVIVER lets our client's messages be answered by our boot host's
// decisions, over frames and with no socket.
func TestBothEndsOfVIVER(t *testing.T) {
	host, hostMAC := netip.MustParsePrefix("10.77.0.9/16"), ether.MAC{2, 0, 0, 0, 0, 9}
	cfg := dhcp.Config{Mode: dhcp.Full, MAC: hostMAC, Address: host, Lease: time.Hour, Script: "http://10.77.0.9/boot.ipxe"}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	table := dhcp.NewLeases(host.Masked(), time.Now, host.Addr())
	xid := dhcpv4.TransactionID{1, 2, 3, 4}
	answer := func(q request, err error) reply {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		d, err := packet.ParseDatagram(q.frame(testMAC()))
		if err != nil {
			t.Fatal(err)
		}
		req, err := dhcpv4.FromBytes(d.Payload)
		if err != nil {
			t.Fatal(err)
		}
		decision := dhcp.Decide(req, dhcp.Arrival{Port: dhcp.ServerPort, From: d.Src}, &cfg, table)
		if decision.Reply == nil {
			t.Fatalf("no answer to %s: %s", req.MessageType(), decision.Reason)
		}
		frame := packet.Datagram{
			SrcMAC: hostMAC, DstMAC: testMAC(),
			Src: netip.AddrPortFrom(host.Addr(), dhcp.ServerPort), Dst: decision.To, Payload: decision.Reply.ToBytes(),
		}.Marshal()
		r, ok := parseReply(frame, testMAC(), xid)
		if !ok {
			t.Fatalf("the answer to %s is not understood: %s", req.MessageType(), decision.Reply.Summary())
		}
		return r
	}

	offer := answer(newDiscover(testMAC(), xid, netip.Addr{}))
	ack := answer(newRequest(testMAC(), xid, offer))
	lease, err := leaseFrom(ack, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := netip.PrefixFrom(dhcp.Candidate(host.Masked(), testMAC(), 0), 16)
	if lease.Address != want || lease.Server != host.Addr() || lease.BootHost != host.Addr() || lease.Expires != time.Hour ||
		lease.Renew != 30*time.Minute || lease.Hostname != hostname.Default(hostname.DefaultPrefix, testMAC().String()) || lease.Router.IsValid() {
		t.Errorf("lease: %+v, want %s", lease, want)
	}
	for _, broadcast := range []bool{false, true} {
		renewed := answer(newRenewal(testMAC(), xid, lease, broadcast))
		if again, err := leaseFrom(renewed, time.Minute); err != nil || renewed.message.MessageType() != dhcpv4.MessageTypeAck || again.Address != want {
			t.Errorf("renewed (broadcast %v) as %+v, %v", broadcast, again, err)
		}
	}
}
