package dhcpclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/klog"
)

// Acquire gets a lease on a link that is up, asking again and again until ctx ends.
// It goes on from what servers have offered; none: it begins with a DISCOVER.
func Acquire(ctx context.Context, link bootnet.Link, servers Servers, log *slog.Logger) (bootnet.Lease, error) {
	c, err := newClient(link, log)
	if err != nil {
		return bootnet.Lease{}, err
	}
	defer c.close()
	return c.acquire(ctx, servers.negotiation)
}

// acquire gets a lease, asking again and again until ctx ends, and from the
// beginning whenever the cable is put back. The first time it goes on with n,
// which may be nil.
func (c *client) acquire(ctx context.Context, n *negotiation) (bootnet.Lease, error) {
	for {
		if err := bootnet.WaitCarrier(ctx, c.link.Index); err != nil {
			return bootnet.Lease{}, err
		}
		if n == nil {
			n = newNegotiation(c.link.MAC, netip.Addr{}, c.log, klog.Uptime())
		}
		lease, err := c.acquireWhileUp(ctx, n)
		n = nil
		if !errors.Is(err, errPulled) {
			return lease, err
		}
		c.log.Warn("no carrier: cable pulled, or switch off; waiting for it", "link", c.link.String())
	}
}

// acquireWhileUp is acquire for as long as the link has a carrier; after that
// its error is errPulled.
func (c *client) acquireWhileUp(ctx context.Context, n *negotiation) (bootnet.Lease, error) {
	c.log.Info("link up, asking for an address", "link", c.link.String())
	ctx, pulled := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { pulled(c.watchCarrier(ctx)) })
	defer watching.Wait()
	defer pulled(nil)
	lease, err := c.negotiate(ctx, n)
	if err != nil {
		return bootnet.Lease{}, fmt.Errorf("%s: no lease: %w", c.link, err)
	}
	return lease, nil
}
