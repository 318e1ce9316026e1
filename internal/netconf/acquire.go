package netconf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// acquire gets a lease, asking again and again until ctx ends, and from the
// beginning whenever the cable is put back. want may be invalid; a valid one is
// asked for again.
func (c *client) acquire(ctx context.Context, want netip.Addr) (Lease, error) {
	for {
		if err := WaitCarrier(ctx, c.link.Index); err != nil {
			return Lease{}, err
		}
		lease, err := c.acquireWhileUp(ctx, want)
		if !errors.Is(err, errPulled) {
			return lease, err
		}
		c.log.Warn("no carrier: cable pulled, or switch off; waiting for it", "link", c.link.String())
	}
}

// acquireWhileUp is acquire for as long as the link has a carrier; after that
// its error is errPulled.
func (c *client) acquireWhileUp(ctx context.Context, want netip.Addr) (Lease, error) {
	c.log.Info("link up, asking for an address", "link", c.link.String())
	ctx, pulled := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { pulled(c.watchCarrier(ctx)) })
	defer watching.Wait()
	defer pulled(nil)
	return c.rounds(ctx, want)
}

// rounds asks until there is a lease or ctx ends.
func (c *client) rounds(ctx context.Context, want netip.Addr) (Lease, error) {
	reason := errNoAnswer
	for {
		lease, err := c.once(ctx, want)
		if err == nil {
			return lease, nil
		}
		if ctx.Err() == nil {
			reason = err
			if !errors.Is(err, errNoAnswer) { // of silence watchCarrier tells
				c.log.Info("no DHCP lease yet", "link", c.link.Name, "reason", err)
			}
			_ = sleep(ctx, jitter(time.Second)[0]) // ctx is looked at below
		}
		if ctx.Err() != nil {
			return Lease{}, fmt.Errorf("%s: no lease: %w (%w)", c.link, reason, context.Cause(ctx))
		}
		if errors.Is(reason, errRefused) {
			want = netip.Addr{}
		}
	}
}
