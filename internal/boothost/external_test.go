package boothost

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"viver.lan/internal/dhcp"
)

// TestNetnsExternal gives real DHCP servers what our page says, and real
// firmware's packets to them: each gets its boot program in the OFFER and in the
// ACK, and a stranger an address only.
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
			s.start(t, b, 0, "boot", advice)
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
	bios := b.recorded("ipxe-bios-discover")
	bios.Options.Del(dhcpv4.OptionUserClassInformation) // what is left is a PXE ROM's
	bios.Options.Del(dhcpv4.GenericOptionCode(175))
	listed := b.recorded("ipxe-bios-discover") // RFC 3004's form, as a rebuilt iPXE sends it
	listed.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("\x04iPXE")))
	arm := b.recorded("ovmf-pxe-discover") // the image is for another machine
	arm.UpdateOption(dhcpv4.OptClientArch(iana.EFI_ARM64))
	x64 := b.host.dhcp.Programs[dhcp.X64]
	script := b.host.dhcp.Script
	return []externalClient{
		{"BIOS PXE", bios, b.host.dhcp.Programs[dhcp.BIOS].TFTP, true, ""},
		{"UEFI PXE", b.recorded("ovmf-pxe-discover"), x64.TFTP, true, ""},
		{"UEFI HTTP Boot", b.recorded("ovmf-http-discover"), x64.URL, false, "HTTPClient"},
		{"iPXE", b.recorded("ipxe-bios-discover"), script, false, ""},
		{"iPXE, user class as a list", listed, script, false, ""},
		{"undionly.kpxe", b.recorded("ipxe-undionly-discover"), script, false, ""},
		{"UEFI arm64", arm, "", false, ""},
		{"udhcpc", b.recorded("udhcpc-discover"), "", false, ""},
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
	file := r.BootFileName
	if file == "" {
		file = r.BootFileNameOption()
	}
	if file != c.file || c.tftp && r.ServerIPAddr.String() != selfIP || c.class != "" && r.ClassIdentifier() != c.class || r.YourIPAddr.IsUnspecified() {
		t.Errorf("%s, %s: file %q from %s, class %q, address %s; want %q, class %q", c.name, r.MessageType(), file, r.ServerIPAddr, r.ClassIdentifier(), r.YourIPAddr, c.file, c.class)
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
