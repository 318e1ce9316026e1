package dhcpwatch

import (
	"context"
	"fmt"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/dhcpclient"
	"viver.lan/internal/packet"
)

// Requests hands what other machines say to DHCP servers on a link to hear,
// until ctx ends, which is no error. It takes no port, which a program of what was
// booted may want.
func Requests(ctx context.Context, link bootnet.Link, hear func(*dhcpv4.DHCPv4)) error {
	s, err := packet.Open(link.Index, packet.EtherTypeIPv4, packet.UDPTo(dhcp.ServerPort))
	if err != nil {
		return fmt.Errorf("overhear DHCP requests on %s: %w", link.Name, err)
	}
	defer s.Close()
	err = s.ReceiveUntil(ctx, time.Time{}, func(frame []byte) bool {
		if p, ok := dhcpclient.RequestOf(frame, link.MAC); ok {
			hear(p)
		}
		return false
	})
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("overhear DHCP requests on %s: %w", link.Name, err)
}
