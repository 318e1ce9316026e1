package netconf

import (
	"context"
	"fmt"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/dhcp"
)

// OverhearRequests hands what other machines say to DHCP servers on a link to hear,
// until ctx ends, which is no error. It takes no port, which a program of what was
// booted may want.
func OverhearRequests(ctx context.Context, link Link, hear func(*dhcpv4.DHCPv4)) error {
	s, err := openPacketSocket(link.Index, etherTypeIPv4, udpTo(dhcp.ServerPort))
	if err != nil {
		return fmt.Errorf("overhear DHCP requests on %s: %w", link.Name, err)
	}
	defer s.close()
	err = s.receiveUntil(ctx, time.Time{}, func(frame []byte) bool {
		if p, ok := requestOf(frame, link.MAC); ok {
			hear(p)
		}
		return false
	})
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("overhear DHCP requests on %s: %w", link.Name, err)
}
