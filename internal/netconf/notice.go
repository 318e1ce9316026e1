package netconf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// How a machine that chose its address by itself looks out for a DHCP server
// that comes later: it listens all the time, which shows what servers
// broadcast, and asks now and then, because many answer the asker alone.
const (
	askServersEvery = 30 * time.Second
	askServersWait  = 4 * time.Second // a server may ping an address before it offers it
)

// awaitServer returns when the link has a DHCP server that is not VIVER's and
// this machine an address from it, or when ctx ends. A machine whose address
// comes from elsewhere has nothing to wait for.
func (g *Guard) awaitServer(ctx context.Context) {
	for ctx.Err() == nil {
		link, lease := g.current()
		if lease.Source != SourceSelf {
			return
		}
		if err := g.moveToServer(ctx, link, lease); err != nil && ctx.Err() == nil {
			g.log.Warn("looking out for other DHCP servers", "link", link.Name, "error", err)
			_ = sleep(ctx, time.Second) // ctx is looked at above
		}
	}
}

// moveToServer waits for a foreign server and takes its address.
func (g *Guard) moveToServer(ctx context.Context, link Link, old Lease) error {
	c, err := newClient(link, g.log)
	if err != nil {
		return err
	}
	defer c.close()
	for {
		if err := c.overhearServer(ctx, time.Now().Add(jitter(g.ask)[0])); err != nil {
			return err
		}
		renewed, err := c.leaseOfStranger(ctx)
		if errors.Is(err, errNoAnswer) {
			continue
		}
		if err != nil {
			return err
		}
		g.log.Warn("another DHCP server is on the link: addresses are its business from now on", "server", renewed.Server, "address", renewed.Address)
		return g.adopt(old, renewed)
	}
}

// overhearServer returns when a foreign server gave anybody an address, or at
// the deadline.
func (c *client) overhearServer(ctx context.Context, deadline time.Time) error {
	err := c.socket.receiveUntil(ctx, deadline, func(frame []byte) bool {
		r, ok := parseAnyReply(frame)
		if !ok || r.marked() {
			return false
		}
		_, err := leaseFrom(r, 0)
		return err == nil
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// leaseOfStranger asks once for an address of a server that is not VIVER's.
func (c *client) leaseOfStranger(ctx context.Context) (Lease, error) {
	discover, err := newDiscover(c.link.MAC, newTransaction(), netip.Addr{})
	if err != nil {
		return Lease{}, err
	}
	var offer reply
	err = c.ask(ctx, discover, []time.Duration{askServersWait}, func(r reply) bool {
		_, err := leaseFrom(r, 0)
		offer = r
		return err == nil && r.message.MessageType() == dhcpv4.MessageTypeOffer && !r.marked()
	})
	if err != nil {
		return Lease{}, err
	}
	request, err := newRequest(c.link.MAC, offer)
	if err != nil {
		return Lease{}, err
	}
	lease, err := c.request(ctx, request, requestWaits(), offer.server())
	if err != nil {
		return Lease{}, fmt.Errorf("DHCP server %s offers %s and does not give it: %w", offer.server(), offer.message.YourIPAddr, err)
	}
	return lease, nil
}
