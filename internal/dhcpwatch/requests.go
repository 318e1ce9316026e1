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

// Requests hands what other machines send to DHCP servers on a link to handle, until
// ctx ends, which is no error.
func Requests(ctx context.Context, link bootnet.Card, handle func(*dhcpv4.DHCPv4)) error {
	s, err := packet.Open(link.Index, packet.EtherTypeIPv4, packet.UDPTo(dhcp.ServerPort))
	if err != nil {
		return fmt.Errorf("listen for DHCP requests on %s: %w", link.Name, err)
	}
	defer s.Close()
	err = s.ReceiveUntil(ctx, time.Time{}, func(frame []byte) bool {
		if p, ok := dhcpclient.RequestOf(frame, link.MAC); ok {
			handle(p)
		}
		return false
	})
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("listen for DHCP requests on %s: %w", link.Name, err)
}
