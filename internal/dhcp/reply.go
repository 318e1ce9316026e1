package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// grant makes an OFFER or ACK that gives addr, with the boot program in it.
func (d *decision) grant(t dhcpv4.MessageType, addr netip.Addr) {
	r, err := d.reply(t)
	if err != nil {
		d.ignore("%v", err)
		return
	}
	if d.Client.Kind != Node {
		if err := d.addProgram(r); err != nil {
			d.ignore("%v", err)
			return
		}
	}
	cfg := d.cfg
	r.YourIPAddr = ip(addr)
	r.ClientIPAddr = d.req.ClientIPAddr
	r.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(cfg.Address.Bits(), 32)))
	r.UpdateOption(dhcpv4.OptIPAddressLeaseTime(cfg.Lease))
	r.UpdateOption(dhcpv4.OptRenewTimeValue((cfg.Lease / 2).Truncate(time.Second)))
	r.UpdateOption(dhcpv4.OptRebindingTimeValue((cfg.Lease * 7 / 8).Truncate(time.Second)))
	r.UpdateOption(dhcpv4.OptHostName(cfg.hostname(d.Client.MAC)))
	if cfg.MTU > 0 && cfg.MTU < EthernetMTU {
		r.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, uint16(cfg.MTU))))
	}
	router, dns := cfg.Router, cfg.DNS
	if d.Client.Kind != Node {
		if !router.IsValid() {
			router = cfg.Address.Addr()
		}
		if len(dns) == 0 {
			dns = []netip.Addr{cfg.Address.Addr()}
		}
	}
	if router.IsValid() {
		r.UpdateOption(dhcpv4.OptRouter(ip(router)))
	}
	if len(dns) > 0 {
		servers := make([]net.IP, len(dns))
		for i, a := range dns {
			servers[i] = ip(a)
		}
		r.UpdateOption(dhcpv4.OptDNS(servers...))
	}
	d.respond(r, fmt.Sprintf("%s %s", t, addr))
}

// offerProgram makes a reply that names the boot program and gives no address.
func (d *decision) offerProgram(t dhcpv4.MessageType) {
	r, err := d.reply(t)
	if err == nil {
		err = d.addProgram(r)
	}
	if err != nil {
		d.ignore("%v", err)
		return
	}
	d.respond(r, fmt.Sprintf("%s %s", t, r.BootFileName))
}

// refuse makes a NAK. It is broadcast: the client must drop what it has.
func (d *decision) refuse(reason error) {
	if errors.Is(reason, ErrFull) {
		d.ignore("%v", reason) // another host may have room
		return
	}
	r, err := d.reply(dhcpv4.MessageTypeNak)
	if err != nil {
		d.ignore("%v", err)
		return
	}
	r.ServerIPAddr = net.IPv4zero // RFC 2131, table 3
	r.UpdateOption(dhcpv4.OptMessage(reason.Error()))
	d.respond(r, fmt.Sprintf("NAK: %v", reason))
}

func (d *decision) respond(r *dhcpv4.DHCPv4, reason string) {
	d.Reply, d.Reason = r, reason
	d.To = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), ClientPort)
}

// reply makes the part that all answers share.
func (d *decision) reply(t dhcpv4.MessageType) (*dhcpv4.DHCPv4, error) {
	r, err := dhcpv4.NewReplyFromRequest(d.req)
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", t, err)
	}
	self := ip(d.cfg.Address.Addr())
	r.ServerIPAddr = self
	r.UpdateOption(dhcpv4.OptMessageType(t))
	r.UpdateOption(dhcpv4.OptServerIdentifier(self))
	if guid := d.req.Options.Get(dhcpv4.OptionClientMachineIdentifier); len(guid) > 0 {
		r.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, guid))
	}
	r.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(OptionMark), []byte(Mark)))
	return r, nil
}

// addProgram says what to load next and how, in every place that some
// firmware looks: the header's file field and options 66 and 67 alike.
func (d *decision) addProgram(r *dhcpv4.DHCPv4) error {
	name, class, err := d.program()
	if err != nil {
		return err
	}
	self := d.cfg.Address.Addr().String()
	r.BootFileName = name
	r.UpdateOption(dhcpv4.OptTFTPServerName(self))
	r.UpdateOption(dhcpv4.OptBootFileName(name))
	r.UpdateOption(dhcpv4.OptClassIdentifier(class))
	switch d.Client.Kind {
	case PXE:
		// PXE_DISCOVERY_CONTROL = 8: take the file named here, no boot menu
		// and no search for other boot servers.
		r.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, []byte{6, 1, 8, 255}))
	case IPXE:
		// no-pxedhcp = 1: do not wait for a second, proxy offer.
		r.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(175), []byte{0xb0, 1, 1}))
	}
	return nil
}

// program picks the boot program and the option 60 that its reader expects.
func (d *decision) program() (name, class string, err error) {
	c := d.Client
	p, ok := d.cfg.Programs[c.Platform]
	if !ok {
		return "", "", fmt.Errorf("the image does not boot on the machine of a %s client of architecture %d", c.Kind, c.Arch)
	}
	switch c.Kind {
	case IPXE:
		name, class = d.cfg.Script, "PXEClient"
	case HTTPBoot:
		name, class = p.URL, "HTTPClient"
	default:
		name, class = p.TFTP, "PXEClient"
	}
	if name == "" {
		return "", "", fmt.Errorf("the image has no boot program for a %s client of architecture %d", c.Kind, c.Arch)
	}
	if len(name) > maxFileField {
		return "", "", fmt.Errorf("boot file name %q is longer than the %d bytes of the packet's file field", name, maxFileField)
	}
	return name, class, nil
}

// maxFileField is the longest name that fits the header with its final zero.
const maxFileField = 127

func ip(a netip.Addr) net.IP { return net.IP(a.AsSlice()) }
