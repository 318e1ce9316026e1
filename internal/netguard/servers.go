package netguard

import (
	"context"
	"errors"
	"sync"
	"time"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/dhcpclient"
	"viver.lan/internal/packet"
	"viver.lan/internal/sleep"
)

// watchServers looks for DHCP servers that are not VIVER's until ctx ends, and
// takes an address of the first. A machine whose address comes from elsewhere has
// nothing to wait for, unless it gets another one.
func (g *Guard) watchServers(ctx context.Context) {
	for ctx.Err() == nil {
		link, lease := g.dhcpLink()
		move := g.moveToServer
		switch {
		case lease.Source == bootnet.SourceStatic:
			return
		case lease.Source == bootnet.SourceSelf:
		case lease.Viver:
			move = g.followServer
		default:
			_ = sleep.For(ctx, dhcpclient.AskEvery) // a boot host may give it again one day
			continue
		}
		err := g.untilLinkChanges(ctx, func(ctx context.Context) error { return move(ctx, link, lease) })
		if err != nil && !errors.Is(err, context.Canceled) {
			g.log.Warn("cannot look for other DHCP servers", "link", link.Name, "error", err)
			_ = sleep.For(ctx, time.Second) // the loop checks ctx
		}
	}
}

// untilLinkChanges runs do and cancels it when another device has the address, or when
// the cable was pulled and is back: the other end may be another network, whose switch
// port opens late again.
func (g *Guard) untilLinkChanges(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-g.linkChanged:
			cancel()
		case <-ctx.Done():
		}
	})
	defer waiting.Wait()
	defer cancel()
	return do(ctx)
}

// moveToServer waits for a foreign server and takes its address.
func (g *Guard) moveToServer(ctx context.Context, link bootnet.Card, old bootnet.Lease) error {
	lease, err := dhcpclient.AwaitForeign(ctx, link, g.ask, g.log)
	if err != nil {
		return err
	}
	g.log.Warn("another DHCP server is on the link: this machine takes its address from there from now on", "server", lease.Server, "address", lease.Address)
	return g.adopt(ctx, old, lease)
}

// followTime is how long a node asks after it observed a foreign server.
const followTime = 30 * time.Second

// followServer is for a node whose address is a boot host's: when it observes a
// foreign server it asks that one for an address, as the boot host does too, so
// that all nodes stay on one network. It returns nil when there was nothing to
// move to.
func (g *Guard) followServer(ctx context.Context, link bootnet.Card, lease bootnet.Lease) error {
	s, err := packet.Open(link.Index, packet.EtherTypeIPv4, packet.UDPTo(dhcp.ServerPort, dhcp.ClientPort))
	if err != nil {
		return err
	}
	foreign := dhcp.NewForeign(lease.Address.Addr(), link.MAC, time.Now)
	err = s.ReceiveUntil(ctx, time.Time{}, func(frame []byte) bool {
		observation, ok := dhcpclient.ObservationOf(frame, link.MAC)
		return ok && foreign.Observe(observation)
	})
	s.Close()
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, followTime)
	defer cancel()
	err = g.moveToServer(asking, link, lease)
	if asking.Err() != nil && ctx.Err() == nil {
		return nil // it gives none to us
	}
	return err
}
