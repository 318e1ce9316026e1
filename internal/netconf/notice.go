package netconf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// How a machine that chose its address by itself looks out for a DHCP server
// that comes later: it listens all the time, which shows what servers
// broadcast, and asks now and then, because many answer the asker alone. For the
// first askDense of a link it asks often: the server may have been there all
// the time, behind a port that the switch had not opened yet.
const (
	askServersEvery = 30 * time.Second
	askServersWait  = 4 * time.Second // a server may ping an address before it offers it
	askDense        = treeDelay + 15*time.Second
)

// askPause is the pause before the next question on a link that is up since
// that long: a sixteenth of every at first, then growing into it.
func askPause(up, every time.Duration) time.Duration {
	return min(max(every/16, up-askDense), every)
}

// awaitServer looks out for DHCP servers that are not VIVER's until ctx ends, and
// takes an address of the first. A machine whose address comes from elsewhere has
// nothing to wait for, unless it gets another one.
func (g *Guard) awaitServer(ctx context.Context) {
	for ctx.Err() == nil {
		link, lease := g.current()
		move := g.moveToServer
		switch {
		case lease.Source == SourceStatic:
			return
		case lease.Source == SourceSelf:
		case lease.Viver:
			move = g.follow
		default:
			_ = sleep(ctx, askServersEvery) // a boot host may give it again one day
			continue
		}
		err := g.untilReplugged(ctx, func(ctx context.Context) error { return move(ctx, link, lease) })
		if err != nil && !errors.Is(err, context.Canceled) {
			g.log.Warn("looking out for other DHCP servers", "link", link.Name, "error", err)
			_ = sleep(ctx, time.Second) // ctx is looked at above
		}
	}
}

// untilReplugged runs do and cancels it when the cable was pulled and is back:
// the other end may be another network, whose switch port opens late again.
func (g *Guard) untilReplugged(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-g.replugged:
			cancel()
		case <-ctx.Done():
		}
	})
	defer waiting.Wait()
	defer cancel()
	return do(ctx)
}

// moveToServer waits for a foreign server and takes its address.
func (g *Guard) moveToServer(ctx context.Context, link Link, old Lease) error {
	c, err := newClient(link, g.log)
	if err != nil {
		return err
	}
	defer c.close()
	offer, err := c.awaitForeign(ctx, g.ask)
	if err != nil {
		return err
	}
	request, err := newRequest(link.MAC, offer)
	if err != nil {
		return err
	}
	lease, err := c.request(ctx, request, requestWaits(), offer.server())
	if err != nil {
		return fmt.Errorf("DHCP server %s offers %s and does not give it: %w", offer.server(), offer.message.YourIPAddr, err)
	}
	g.log.Warn("another DHCP server is on the link: addresses are its business from now on", "server", lease.Server, "address", lease.Address)
	return g.adopt(old, lease)
}

// AwaitForeign waits until a DHCP server that is not VIVER's offers addresses
// on the link, and returns what it offers us. Nothing is taken.
func AwaitForeign(ctx context.Context, link Link, log *slog.Logger) (Offer, error) {
	c, err := newClient(link, log)
	if err != nil {
		return Offer{}, err
	}
	defer c.close()
	r, err := c.awaitForeign(ctx, askServersEvery)
	if err != nil {
		return Offer{}, fmt.Errorf("look out for DHCP servers on %s: %w", link.Name, err)
	}
	return offerFrom(r), nil
}

// awaitForeign waits for the offer of a foreign server. It takes the link to
// have come up just now.
func (c *client) awaitForeign(ctx context.Context, every time.Duration) (reply, error) {
	began := time.Now()
	for {
		pause := jitter(askPause(time.Since(began), every))[0]
		if err := c.overhearForeign(ctx, time.Now().Add(pause)); err != nil {
			return reply{}, err
		}
		offer, err := c.askForeign(ctx)
		if !errors.Is(err, errNoAnswer) {
			return offer, err
		}
	}
}

// overhearForeign returns when a foreign server gave anybody an address, or at
// the deadline.
func (c *client) overhearForeign(ctx context.Context, deadline time.Time) error {
	err := c.socket.receiveUntil(ctx, deadline, func(frame []byte) bool {
		r, ok := parseAnyReply(frame)
		return ok && r.foreign()
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// askForeign asks once for an address of a server that is not VIVER's.
func (c *client) askForeign(ctx context.Context) (offer reply, err error) {
	discover, err := newDiscover(c.link.MAC, newTransaction(), netip.Addr{})
	if err != nil {
		return offer, err
	}
	err = c.ask(ctx, discover, []time.Duration{askServersWait}, func(r reply) bool {
		offer = r
		return r.message.MessageType() == dhcpv4.MessageTypeOffer && r.foreign()
	})
	return offer, err
}

// foreign reports whether the message gives or offers an address and is not
// from a VIVER boot host.
func (r reply) foreign() bool {
	_, err := leaseFrom(r, 0)
	return err == nil && !r.marked()
}
