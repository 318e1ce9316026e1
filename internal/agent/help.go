package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/boothost"
	"viver.lan/internal/contain"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/netconf"
	"viver.lan/internal/sleep"
)

// Whose turn it is follows from what members say of themselves, so members that
// serve nobody could take all turns. A machine that asks in vain is a fact that
// every node hears: then those serve whose turn it is not.
const (
	// helpAfter is how long a machine asks before the next boothost.Hosts nodes
	// serve, and again before as many more do. Firmware asks for a minute (PXE
	// 2.1, 2.2.1: after 4, 8, 16 and 32 s).
	helpAfter = 12 * time.Second
	// helpGroups bounds that: after that many all do.
	helpGroups = 4
	// helpTime is how long they then go on.
	helpTime = 10 * time.Minute
)

// help knows whether this machine serves out of turn.
type help struct {
	asking *dhcp.Unanswered
	now    func() time.Time
	log    *slog.Logger

	mu    sync.Mutex
	place int       // ours among the boot hosts, by what members say
	until time.Time // we serve
}

func newHelp(now func() time.Time, log *slog.Logger) *help {
	return &help{asking: dhcp.NewUnanswered(now), now: now, log: log, place: boothost.Hosts}
}

// turn returns the turn of the machine at this place: its own, or the last one
// while it helps.
func (h *help) turn(place int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.place = place
	if h.now().Before(h.until) {
		return min(place, boothost.Hosts-1)
	}
	return place
}

// hear takes what a machine says to DHCP servers.
func (h *help) hear(p *dhcpv4.DHCPv4) {
	waited := h.asking.Observe(p)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.place < boothost.Hosts || waited < helpAfter*time.Duration(min(h.place/boothost.Hosts, helpGroups)) {
		return
	}
	now := h.now()
	if !now.Before(h.until) {
		h.log.Warn("a machine asks for a boot in vain: this node serves, although others say that they do", "mac", p.ClientHWAddr, "seconds", int(waited.Seconds()))
	}
	h.until = now.Add(helpTime)
}

// overhear listens for machines that ask in vain, until ctx ends. Where it cannot
// listen, all else goes on.
func (t *turns) overhear(ctx context.Context, link netconf.Link) error {
	for {
		err := netconf.OverhearRequests(ctx, link, func(p *dhcpv4.DHCPv4) {
			contain.Do(t.log, "a DHCP packet", func() { t.help.hear(p) })
		})
		if err == nil || sleep.For(ctx, retryServing) != nil {
			return nil
		}
		t.log.Warn("machines that ask without success are not noticed", "error", err)
	}
}
