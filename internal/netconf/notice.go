package netconf

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"viver.lan/internal/klog"
	"viver.lan/internal/sleep"
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
			move = g.followServer
		default:
			_ = sleep.For(ctx, askServersEvery) // a boot host may give it again one day
			continue
		}
		err := g.untilReplugged(ctx, func(ctx context.Context) error { return move(ctx, link, lease) })
		if err != nil && !errors.Is(err, context.Canceled) {
			g.log.Warn("looking out for other DHCP servers", "link", link.Name, "error", err)
			_ = sleep.For(ctx, time.Second) // ctx is looked at above
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
	n := newNegotiation(link.MAC, netip.Addr{}, g.log, klog.Uptime())
	n.accept, n.watch = reply.foreign, true
	n.pause = func(up time.Duration, _ int) time.Duration { return askServersWait + askPause(up, g.ask) }
	n.due = askPause(0, g.ask)
	lease, err := c.negotiate(ctx, n)
	if err != nil {
		return err
	}
	g.log.Warn("another DHCP server is on the link: addresses are its business from now on", "server", lease.Server, "address", lease.Address)
	return g.adopt(ctx, old, lease)
}

// foreign reports whether the message gives or offers an address and is not
// from a VIVER boot host.
func (r reply) foreign() bool {
	_, err := leaseFrom(r, 0)
	return err == nil && !r.marked()
}
