package boothost

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/dhcp"
)

// TestNetnsExternal gives real DHCP servers what our page says, and real
// firmware's packets to them: each gets its boot program in the OFFER and in the
// ACK, and another client an address only.
func TestNetnsExternal(t *testing.T) {
	if !inNetns(t, "dnsmasq", "dhcpd", "kea-dhcp4", "curl") {
		return
	}
	b := newBench(t, func(c *Config) { c.Mode = dhcp.External })
	url := "http://" + selfIP + "/"
	page := b.run("curl", "-sf", url)
	for _, s := range servers() {
		t.Run(s.name, func(t *testing.T) {
			if !strings.Contains(page, "external/"+s.advice) {
				t.Errorf("the page does not lead to external/%s:\n%s", s.advice, page)
			}
			advice := b.run("curl", "-sf", url+"external/"+s.advice)
			s.start(t, b, "", "boot", advice)
			b.speak(func(ask func(p *dhcpv4.DHCPv4, to string), answer func() *dhcpv4.DHCPv4) {
				for _, c := range externalClients(b) {
					c.check(t, ask, answer)
				}
			})
		})
	}
}

// externalClient is a program that asks, and what it has to be told.
type externalClient struct {
	name     string
	discover *dhcpv4.DHCPv4
	file     string
	tftp     bool // the file comes from our TFTP server
	class    string
}

func externalClients(b *bench) []externalClient {
	b.t.Helper()
	x64, bios, script := b.host.dhcp.Programs[dhcp.X64], b.host.dhcp.Programs[dhcp.BIOS].TFTP, b.host.dhcp.Script
	const arch, userClass, encapsulated = 93, 77, 175
	// as changes one option of a recorded packet; no value means that it is not sent.
	as := func(name string, options ...any) *dhcpv4.DHCPv4 {
		p := b.recorded(name)
		for i := 0; i < len(options); i += 2 {
			code := dhcpv4.GenericOptionCode(options[i].(int))
			if p.Options.Del(code); options[i+1] != "" {
				p.UpdateOption(dhcpv4.OptGeneric(code, []byte(options[i+1].(string))))
			}
		}
		return p
	}
	rom := []any{userClass, "", encapsulated, ""} // what is left of iPXE's packet is a PXE ROM's
	return []externalClient{
		{"BIOS PXE", as("ipxe-bios-discover", rom...), bios, true, ""},
		{"BIOS PXE without an architecture", as("ipxe-bios-discover", append(rom, arch, "")...), bios, true, ""},
		{"UEFI PXE", b.recorded("ovmf-pxe-discover"), x64.TFTP, true, ""},
		{"UEFI PXE as EFI BC", as("ovmf-pxe-discover", arch, "\x00\x09"), x64.TFTP, true, ""},
		{"UEFI HTTP Boot", b.recorded("ovmf-http-discover"), x64.URL, false, "HTTPClient"},
		{"iPXE", b.recorded("ipxe-bios-discover"), script, false, ""},
		{"iPXE, user class as a list", as("ipxe-bios-discover", userClass, "\x04iPXE"), script, false, ""},
		{"iPXE, behind another user class", as("ipxe-bios-discover", userClass, "\x03abc\x04iPXE"), script, false, ""},
		{"iPXE, before another, without its own option", as("ipxe-bios-discover", userClass, "\x04iPXE\x03abc", encapsulated, ""), script, false, ""},
		{"iPXE without its own option", as("ipxe-bios-discover", encapsulated, ""), script, false, ""},
		{"iPXE without a user class", as("ipxe-bios-discover", userClass, ""), script, false, ""},
		{"iPXE on UEFI", as("ipxe-bios-discover", arch, "\x00\x07"), script, false, ""},
		{"undionly.kpxe", b.recorded("ipxe-undionly-discover"), script, false, ""},
		{"UEFI arm64", as("ovmf-pxe-discover", arch, "\x00\x0b"), "", false, ""}, // the image is for another machine
		{"UEFI ia32", as("ovmf-pxe-discover", arch, "\x00\x06"), "", false, ""},
		{"ia32 HTTP Boot", as("ovmf-http-discover", arch, "\x00\x0f"), "", false, ""},
		{"iPXE on arm64", as("ipxe-bios-discover", arch, "\x00\x0b"), "", false, ""},
		{"udhcpc", b.recorded("udhcpc-discover"), "", false, ""},
		{"VIVER's initramfs", as("udhcpc-discover", 60, dhcp.NodeClass), "", false, ""},
	}
}

// check goes through DISCOVER, OFFER, REQUEST, ACK.
func (c externalClient) check(t *testing.T, ask func(p *dhcpv4.DHCPv4, to string), answer func() *dhcpv4.DHCPv4) {
	t.Helper()
	ask(c.discover, everyone)
	offer := answer()
	c.judge(t, offer)
	request := *c.discover
	request.Options = make(dhcpv4.Options)
	for code, value := range c.discover.Options {
		request.Options[code] = value
	}
	request.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeRequest))
	request.UpdateOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr))
	request.UpdateOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier()))
	ask(&request, everyone)
	ack := answer()
	if ack.MessageType() != dhcpv4.MessageTypeAck {
		t.Errorf("%s: want an ACK, got %s", c.name, ack.Summary())
	}
	c.judge(t, ack)
}

func (c externalClient) judge(t *testing.T, r *dhcpv4.DHCPv4) {
	t.Helper()
	option := r.BootFileNameOption()
	if option == keaSample {
		option = ""
	}
	file := r.BootFileName
	if file == "" {
		file = option
	}
	if file != c.file || r.BootFileNameOption() == keaSample && c.file != "" || option != "" && option != c.file ||
		c.tftp && r.ServerIPAddr.String() != selfIP || c.class != "" && r.ClassIdentifier() != c.class || r.YourIPAddr.IsUnspecified() {
		t.Errorf("%s, %s: file %q, option 67 %q from %s, class %q, address %s; want %q, class %q", c.name, r.MessageType(),
			r.BootFileName, r.BootFileNameOption(), r.ServerIPAddr, r.ClassIdentifier(), r.YourIPAddr, c.file, c.class)
	}
}

// recorded is a packet of a real client, whose answer shall be broadcast.
func (b *bench) recorded(name string) *dhcpv4.DHCPv4 {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "dhcp", "testdata", name+".bin"))
	if err != nil {
		b.t.Fatal(err)
	}
	p, err := dhcpv4.FromBytes(data)
	if err != nil {
		b.t.Fatal(err)
	}
	p.SetBroadcast()
	return p
}
