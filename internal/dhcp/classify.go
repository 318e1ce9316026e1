package dhcp

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"viver.lan/internal/ether"
)

// Kind is the sort of client behind a request, as far as our answer differs.
type Kind string

// The kinds of clients. Everything that is not one of ours is an OtherClient.
const (
	OtherClient Kind = "other"
	PXE         Kind = "pxe"  // firmware that loads by TFTP
	HTTPBoot    Kind = "http" // firmware that loads by HTTP
	IPXE        Kind = "ipxe" // iPXE, which runs our script
	Node        Kind = "node" // VIVER's own initramfs
)

// Client is what a request tells about its sender.
type Client struct {
	Kind Kind
	MAC  ether.MAC
	// Platform is empty when it is one that we know no program for.
	Platform Platform
	// Arch is option 93 as sent, NoArch when absent.
	Arch int
}

// NoArch stands for a missing option 93 (client system architecture).
const NoArch = -1

// Classify tells what sent the request. It fails only for hardware that is not
// Ethernet.
func Classify(req *dhcpv4.DHCPv4) (Client, error) {
	mac, err := ether.MACOf(req.ClientHWAddr)
	if err != nil {
		return Client{}, err
	}
	class := req.ClassIdentifier()
	c := Client{MAC: mac, Arch: arch(req, class)}
	c.Platform = platformOf(c.Arch)
	switch {
	case strings.HasPrefix(class, NodeClass):
		c.Kind = Node
	case isIPXE(req):
		c.Kind = IPXE
	case strings.HasPrefix(class, "HTTPClient"):
		c.Kind = HTTPBoot
	case strings.HasPrefix(class, "PXEClient"):
		c.Kind = PXE
	default:
		c.Kind = OtherClient
	}
	return c, nil
}

// isIPXE looks for the user class "iPXE". iPXE sends option 77 as a bare
// string; RFC 3004 wants a list of length-prefixed ones, and relays and
// rebuilt programs do send that.
func isIPXE(req *dhcpv4.DHCPv4) bool {
	data := req.Options.Get(dhcpv4.OptionUserClassInformation)
	want := []byte("iPXE")
	if bytes.Equal(data, want) {
		return true
	}
	for len(data) > 0 {
		n := int(data[0])
		if n == 0 || n > len(data)-1 {
			return false
		}
		if bytes.Equal(data[1:1+n], want) {
			return true
		}
		data = data[1+n:]
	}
	return false
}

// arch reads option 93, or the same number out of the class identifier
// "PXEClient:Arch:00007:UNDI:003016" when firmware leaves the option out.
func arch(req *dhcpv4.DHCPv4, class string) int {
	if data := req.Options.Get(dhcpv4.OptionClientSystemArchitectureType); len(data) >= 2 {
		return int(binary.BigEndian.Uint16(data))
	}
	_, rest, ok := strings.Cut(class, ":Arch:")
	if !ok || len(rest) < 5 {
		return NoArch
	}
	n := 0
	for _, digit := range []byte(rest[:5]) {
		if digit < '0' || digit > '9' {
			return NoArch
		}
		n = n*10 + int(digit-'0')
	}
	return n
}

// platformOf maps the architecture numbers of IANA's "Processor Architecture
// Types". A client that sends none is a BIOS older than RFC 4578.
func platformOf(arch int) Platform {
	if arch == NoArch {
		return BIOS
	}
	switch iana.Arch(arch) {
	case iana.INTEL_X86PC, iana.INTEL_X86PC_HTTP:
		return BIOS
	case iana.EFI_X86_64, iana.EFI_BC, iana.EFI_X86_64_HTTP, iana.EFI_BC_HTTP:
		return X64
	case iana.EFI_IA32, iana.EFI_X86_HTTP:
		return IA32
	case iana.EFI_ARM64, iana.EFI_ARM64_HTTP:
		return ARM64
	}
	return ""
}
