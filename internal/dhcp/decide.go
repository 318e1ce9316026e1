package dhcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/ether"
)

// Arrival says where a request came in.
type Arrival struct {
	Port int            // our port: ServerPort or PXEPort
	From netip.AddrPort // the sender's
}

// Decision is what to do about a request.
type Decision struct {
	Client Client
	// Reply is what to send, nil for nothing.
	Reply *dhcpv4.DHCPv4
	// To is where to send it. The broadcast address means this link only.
	To netip.AddrPort
	// Reason explains the decision; it goes into the log.
	Reason string
	// Relay is the relay through which the request came, when that is the only
	// reason why it is not answered.
	Relay netip.Addr
}

// Decide answers a request. The table is changed where the protocol says so: a
// confirmed address is bound, a declined one is abandoned.
func Decide(req *dhcpv4.DHCPv4, at Arrival, cfg *Config, table Table) Decision {
	d := decision{req: req, at: at, cfg: cfg, table: table}
	if !d.ours() {
		return d.Decision
	}
	switch {
	case at.Port == PXEPort:
		d.bootServer()
	case cfg.Mode == Proxy:
		d.proxy()
	default:
		d.full()
	}
	return d.Decision
}

// AddressToProbe returns the address that an answer to the request would give to a
// machine and that has to be probed first. Probe it, and tell the table by Probed,
// before you Decide. ok is false when no probe is needed.
func AddressToProbe(req *dhcpv4.DHCPv4, at Arrival, cfg *Config, table Table) (m ether.MAC, addr netip.Addr, ok bool) {
	d := decision{req: req, at: at, cfg: cfg, table: table}
	if at.Port != ServerPort || cfg.Mode != Full || !d.ours() {
		return m, addr, false
	}
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		var err error
		if addr, err = table.Find(d.Client.MAC); err != nil {
			return m, addr, false
		}
	case dhcpv4.MessageTypeRequest:
		addr, _ = d.requested()
	}
	return d.Client.MAC, addr, addr.IsValid() && table.NeedsProbe(d.Client.MAC, addr)
}

// decision is one request on its way to an answer.
type decision struct {
	Decision
	req   *dhcpv4.DHCPv4
	at    Arrival
	cfg   *Config
	table Table
}

func (d *decision) ignore(format string, args ...any) {
	d.Reason = fmt.Sprintf(format, args...)
}

// ours finds out whether the request is one that this host answers at all.
func (d *decision) ours() bool {
	if d.req.OpCode != dhcpv4.OpcodeBootRequest {
		d.ignore("not a request")
		return false
	}
	var err error
	if d.Client, err = Classify(d.req); err != nil {
		d.ignore("%v", err)
		return false
	}
	self := d.cfg.Address.Addr()
	server, named := serverID(d.req)
	switch {
	case d.cfg.Mode == External:
		d.ignore("the network's own DHCP server names the boot program")
	case Marked(d.req):
		d.ignore("another boot host's enquiry")
	case d.Client.MAC == d.cfg.MAC:
		d.ignore("our own request")
	case d.Client.MAC == (ether.MAC{}) || d.Client.MAC[0]&1 != 0:
		d.ignore("%q is not the address of a machine", d.Client.MAC)
	case d.Client.Kind == Stranger:
		d.ignore("a stranger (class %q)", d.req.ClassIdentifier())
	case named && server != self:
		d.ignore("meant for server %s", server)
	case relayed(d.req):
		// All nodes of a network hear each other on one link. A machine
		// elsewhere would boot and then find nobody.
		d.Relay, _ = netip.AddrFromSlice(d.req.GatewayIPAddr.To4())
		d.ignore("relayed by %s: nodes have to be on our own link", d.Relay)
	default:
		return true
	}
	return false
}

// full answers where nobody else gives addresses.
func (d *decision) full() {
	switch kind := d.req.MessageType(); kind {
	case dhcpv4.MessageTypeDiscover:
		addr, err := d.table.Find(d.Client.MAC)
		if err != nil {
			d.ignore("%v", err)
			return
		}
		d.grant(dhcpv4.MessageTypeOffer, addr)
	case dhcpv4.MessageTypeRequest:
		d.request()
	case dhcpv4.MessageTypeDecline:
		addr, _ := netip.AddrFromSlice(d.req.RequestedIPAddress().To4())
		if err := d.table.Decline(d.Client.MAC, addr); err != nil {
			d.ignore("%v", err)
			return
		}
		d.ignore("%s declined: another machine uses it, it is abandoned for an hour", addr)
	case dhcpv4.MessageTypeRelease:
		d.ignore("release: the address stays the machine's own")
	default:
		d.ignore("message type %s needs no answer", kind)
	}
}

// request confirms or refuses an address. A client that remembers one from an
// earlier server keeps it as long as nobody else holds it.
func (d *decision) request() {
	addr, renewing := d.requested()
	if !addr.IsValid() {
		d.ignore("REQUEST without an address")
		return
	}
	if err := d.table.Bind(d.Client.MAC, addr, d.cfg.Lease); err != nil {
		d.refuse(err)
		return
	}
	d.grant(dhcpv4.MessageTypeAck, addr)
	if renewing && d.at.From.Addr().Is4() && d.at.From.Addr() == addr {
		d.To = netip.AddrPortFrom(addr, ClientPort) // RFC 2131, 4.1: unicast to ciaddr
	}
}

// requested returns the address that a REQUEST is for, and whether it renews one;
// the address is invalid when there is none.
func (d *decision) requested() (addr netip.Addr, renewing bool) {
	addr, ok := netip.AddrFromSlice(d.req.RequestedIPAddress().To4())
	if !ok {
		addr, ok = netip.AddrFromSlice(d.req.ClientIPAddr.To4())
		renewing = true
	}
	if !ok || addr.IsUnspecified() {
		return netip.Addr{}, renewing
	}
	return addr, renewing
}

// proxy answers beside the server that gives the addresses: the boot program
// goes into a second OFFER and the client never asks us on port 67 again.
//
// That server may have come when we had given addresses already: they stay, and a
// machine that was only offered one asks that server.
func (d *decision) proxy() {
	_, named := serverID(d.req)
	addr, _ := d.requested()
	request := d.req.MessageType() == dhcpv4.MessageTypeRequest
	switch {
	case request && d.table.Holds(d.Client.MAC, addr):
		d.request()
	case request && named:
		d.refuse(errOthersGive)
	case d.Client.Kind == Node:
		d.ignore("a node gets its address from the network's own server")
	case d.req.MessageType() != dhcpv4.MessageTypeDiscover:
		d.ignore("beside another server only DISCOVER is answered, not %s", d.req.MessageType())
	default:
		d.offerProgram(dhcpv4.MessageTypeOffer)
	}
}

// bootServer answers on port 4011, where some firmware asks a second time
// although the OFFER named everything.
func (d *decision) bootServer() {
	t := d.req.MessageType()
	switch {
	case d.Client.Kind == Node:
		d.ignore("a node has nothing to ask on port %d", PXEPort)
	case t != dhcpv4.MessageTypeRequest && t != dhcpv4.MessageTypeInform && t != dhcpv4.MessageTypeDiscover:
		d.ignore("message type %s needs no answer on port %d", t, PXEPort)
	default:
		d.offerProgram(dhcpv4.MessageTypeAck)
		d.To = d.at.From
	}
}

// errOthersGive refuses an address that was offered before another server was
// noticed.
var errOthersGive = errors.New("another server gives the addresses here")

// serverID returns option 54 of a request that has one.
func serverID(req *dhcpv4.DHCPv4) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(req.ServerIdentifier().To4())
	return addr, ok && !addr.IsUnspecified()
}

func relayed(req *dhcpv4.DHCPv4) bool {
	return req.GatewayIPAddr != nil && !req.GatewayIPAddr.Equal(net.IPv4zero)
}
