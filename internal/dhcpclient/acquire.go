package dhcpclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/klog"
	"viver.lan/internal/sleep"
)

// Acquire gets a lease on a link that is up, asking again and again until ctx ends.
// It goes on from what servers have offered; none: it begins with a DISCOVER.
func Acquire(ctx context.Context, link bootnet.Card, servers Servers, log *slog.Logger) (bootnet.Lease, error) {
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
		if !errors.Is(err, errCarrierLost) {
			return lease, err
		}
		c.log.Warn("no carrier: cable pulled, or switch off; waiting for it", "link", c.link.String())
	}
}

// acquireWhileUp is acquire for as long as the link has a carrier; after that
// its error is errCarrierLost.
func (c *client) acquireWhileUp(ctx context.Context, n *negotiation) (bootnet.Lease, error) {
	c.log.Info("link up, asking for an address", "link", c.link.String())
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { cancel(c.watchCarrier(ctx)) })
	defer watching.Wait()
	defer cancel(nil)
	lease, err := c.negotiate(ctx, n)
	if err != nil {
		return bootnet.Lease{}, fmt.Errorf("%s: no lease: %w", c.link, err)
	}
	return lease, nil
}

// errCarrierLost ends a negotiation on a link that lost its carrier meanwhile.
var errCarrierLost = errors.New("the link lost its carrier")

// stpDelay is how long a switch port with spanning tree forwards nothing after
// link-up: twice the forward delay, which is 15 s unless somebody changed it
// (IEEE 802.1D-2004, table 17-1).
const stpDelay = 30 * time.Second

// When people are told why there is no address: not at once, for most machines get
// theirs within seconds, then again and again.
const (
	firstNotice = 5 * time.Second
	noticeEvery = 10 * time.Second
)

// watchCarrier logs what is waited for on a link that has a carrier, until ctx ends; it
// returns errCarrierLost when the carrier, or the link, goes.
func (c *client) watchCarrier(ctx context.Context) error {
	began, notice := time.Now(), firstNotice
	for {
		if err := sleep.For(ctx, bootnet.PollEvery); err != nil {
			return err
		}
		if l, err := netlink.LinkByIndex(c.link.Index); err != nil || !bootnet.HasCarrier(l) {
			return errCarrierLost
		}
		if up := time.Since(began); up >= notice {
			c.log.Info(noAnswerNotice(c.link.Name, up))
			notice += noticeEvery
		}
	}
}

// noAnswerNotice is for people in front of a machine that gets no address.
func noAnswerNotice(link string, up time.Duration) string {
	reason := "a switch port with spanning tree needs 30 s"
	if up > stpDelay+firstNotice {
		reason = "is a DHCP server or a VIVER boot host on this network?"
	}
	return fmt.Sprintf("no answer on %s for %d s; %s", link, int(up.Seconds()), reason)
}
