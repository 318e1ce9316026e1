package dhcpclient

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
)

// addressProbe probes for the addresses that servers offer (RFC 2131 section 4.4.1),
// one after the other, while the server works on its answer.
type addressProbe struct {
	ctx     context.Context
	cancel  context.CancelFunc
	link    bootnet.Card
	held    netip.Addr // is ours already; not probed for
	log     *slog.Logger
	running sync.WaitGroup
	ignored []ether.MAC  // whose answers do not count
	asked   netip.Prefix // last
	answer  chan owner
}

// owner is another machine that has an address.
type owner struct {
	mac   ether.MAC
	inUse bool
}

// newAddressProbe begins nothing yet; its owner calls stop.
func newAddressProbe(ctx context.Context, link bootnet.Card, held netip.Addr, log *slog.Logger) *addressProbe {
	ctx, cancel := context.WithCancel(ctx)
	return &addressProbe{ctx: ctx, cancel: cancel, link: link, held: held, log: log}
}

// start probes for an address, unless that goes on already.
func (p *addressProbe) start(address netip.Prefix) {
	if address == p.asked {
		return
	}
	p.asked = address
	answer := make(chan owner, 1)
	p.answer = answer
	ignored := slices.Clone(p.ignored)
	p.running.Go(func() { answer <- p.ask(address, ignored) })
}

// ignore has the answers of a machine count no more.
func (p *addressProbe) ignore(mac ether.MAC) {
	p.ignored = append(p.ignored, mac)
	p.asked = netip.Prefix{}
}

// result waits for the end of the probe for an address.
func (p *addressProbe) result(address netip.Prefix) (by ether.MAC, used bool) {
	p.start(address)
	owner := <-p.answer
	p.answer <- owner // it may be asked for again
	return owner.mac, owner.inUse
}

// ask probes for one address. When that fails the address counts as free: servers
// probe too, and a boot must not end here.
func (p *addressProbe) ask(address netip.Prefix, ignored []ether.MAC) owner {
	if address.Addr() == p.held {
		return owner{}
	}
	by, used, err := bootnet.NewLeaseProber(p.link, ignored, p.log).Owner(p.ctx, address)
	if err != nil && p.ctx.Err() == nil {
		p.log.Warn("the address was not probed for", "link", p.link.Name, "address", address, "error", err)
	}
	return owner{by, used && err == nil}
}

// stop ends what goes on, and waits for it.
func (p *addressProbe) stop() {
	p.cancel()
	p.running.Wait()
}
