package firewall

import (
	"encoding/binary"
	"net"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// Fields of packets, as offsets in their headers.
const (
	ip4Source       = 12
	ip4Destination  = 16
	portSource      = 0
	portDest        = 2
	tcpFlags        = 13
	flagsOfInterest = 0x17 // FIN, SYN, RST, ACK
	flagSYN         = 0x02
)

const register = 1

// iptablesMade reports whether a chain is one that iptables-nft made. It reads
// only rules of the kind that it writes itself.
func iptablesMade(c *nftables.Chain) bool {
	switch c.Table.Name {
	case "filter", "mangle", "raw", "security":
		ip := c.Table.Family == nftables.TableFamilyIPv4 || c.Table.Family == nftables.TableFamilyIPv6
		return ip && c.Name == strings.ToUpper(c.Name)
	}
	return false
}

// rulesOf returns the rules that let packets pass in a table.
func rulesOf(list []pass, table *nftables.Table, iptables bool) (rules [][]expr.Any) {
	for _, p := range list {
		v6 := p.proto == unix.IPPROTO_ICMPV6
		if v6 && (table.Family == nftables.TableFamilyIPv4 || iptables) || !v6 && table.Family == nftables.TableFamilyIPv6 {
			continue
		}
		e := append(familyIs(table.Family, v6), &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}, equals(p.proto))
		if p.far.IsValid() {
			e = append(e, inNetwork(p)...)
		}
		switch {
		case v6:
			e = append(e, field(expr.PayloadBaseTransportHeader, 0, 1), equals(p.icmp))
		case iptables:
			e = append(e, xtMatch(p))
		default:
			e = append(e, portIs(p)...)
		}
		rules = append(rules, append(e, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept}))
	}
	return rules
}

func jumpTo(chain string) []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

// familyIs picks IPv4 or IPv6 where a table sees both.
func familyIs(f nftables.TableFamily, v6 bool) []expr.Any {
	switch f {
	case nftables.TableFamilyINet:
		family := byte(unix.NFPROTO_IPV4)
		if v6 {
			family = unix.NFPROTO_IPV6
		}
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register}, equals(family)}
	case nftables.TableFamilyNetdev:
		kind := uint16(unix.ETH_P_IP)
		if v6 {
			kind = unix.ETH_P_IPV6
		}
		return []expr.Any{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: register}, equals(binary.BigEndian.AppendUint16(nil, kind)...)}
	}
	return nil
}

func field(base expr.PayloadBase, offset, size uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: size}
}

func equals(b ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: b} }

func masked(mask []byte) expr.Any {
	return &expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}
}

func inNetwork(p pass) []expr.Any {
	// Who uses one of our ports is at the other end of the packet's way.
	offset := uint32(ip4Source)
	if p.outgoing {
		offset = ip4Destination
	}
	return []expr.Any{
		field(expr.PayloadBaseNetworkHeader, offset, 4),
		masked(net.CIDRMask(p.far.Bits(), 32)),
		equals(p.far.Masked().Addr().AsSlice()...),
	}
}

func portIs(p pass) []expr.Any {
	offset := uint32(portSource)
	if p.at == destination {
		offset = portDest
	}
	e := []expr.Any{field(expr.PayloadBaseTransportHeader, offset, 2), equals(binary.BigEndian.AppendUint16(nil, p.port)...)}
	if p.follows {
		e = append(e, field(expr.PayloadBaseTransportHeader, tcpFlags, 1), masked([]byte{flagsOfInterest}),
			&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: []byte{flagSYN}})
	}
	return e
}

// xtMatch is the same in the words of iptables.
func xtMatch(p pass) expr.Any {
	sources, destinations := [2]uint16{0, 0xffff}, [2]uint16{0, 0xffff}
	if p.at == source {
		sources = [2]uint16{p.port, p.port}
	} else {
		destinations = [2]uint16{p.port, p.port}
	}
	if p.proto == unix.IPPROTO_UDP {
		return &expr.Match{Name: "udp", Info: &xt.Udp{SrcPorts: sources, DstPorts: destinations}}
	}
	tcp := &xt.Tcp{SrcPorts: sources, DstPorts: destinations}
	if p.follows {
		tcp.FlagsMask, tcp.FlagsCmp, tcp.InvFlags = flagsOfInterest, flagSYN, xt.TcpInvFlags
	}
	return &expr.Match{Name: "tcp", Info: tcp}
}
