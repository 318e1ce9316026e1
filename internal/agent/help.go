package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/boothost"
	"viver.lan/internal/bootnet"
	"viver.lan/internal/contain"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/dhcpwatch"
	"viver.lan/internal/sleep"
)

// The rank of a machine follows from what members claim, so members that serve nobody
// could have all ranks that serve. A machine that asks without success is a fact that every
// node hears: then nodes serve that have none of these ranks.
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

// help knows whether this machine serves although its rank is too high.
type help struct {
	asking *dhcp.Unanswered
	now    func() time.Time
	log    *slog.Logger

	mu    sync.Mutex
	own   int       // rank, by what members say
	until time.Time // we serve
}

func newHelp(now func() time.Time, log *slog.Logger) *help {
	return &help{asking: dhcp.NewUnanswered(now), now: now, log: log, own: boothost.Hosts}
}

// rank returns the rank of the machine that has this one by what members say, and for
// how long yet: its own, or while it helps the last that serves.
func (h *help) rank(own int) (rank int, left time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.own = own
	if left := h.until.Sub(h.now()); left > 0 {
		return min(own, boothost.Hosts-1), left
	}
	return own, forever
}

// observe takes what a machine says to DHCP servers, and reports whether this node
// begins to help.
func (h *help) observe(p *dhcpv4.DHCPv4) (begins bool) {
	waited := h.asking.Observe(p)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.own < boothost.Hosts || waited < helpAfter*time.Duration(min(h.own/boothost.Hosts, helpGroups)) {
		return false
	}
	now := h.now()
	if begins = !now.Before(h.until); begins {
		h.log.Warn("a machine asks for a boot without success: this node serves, although others say that they do", "mac", p.ClientHWAddr, "seconds", int(waited.Seconds()))
	}
	h.until = now.Add(helpTime)
	return begins
}

// overhear listens for machines that ask without success, until ctx ends. Where it cannot
// listen, all else goes on.
func (r *ranking) overhear(ctx context.Context, link bootnet.Card) error {
	for {
		err := dhcpwatch.Requests(ctx, link, func(p *dhcpv4.DHCPv4) {
			contain.Do(r.log, "a DHCP packet", func() {
				if r.help.observe(p) {
					r.news.Notify()
				}
			})
		})
		if err == nil || sleep.For(ctx, retryServing) != nil {
			return nil
		}
		r.log.Warn("machines that ask without success are not noticed", "error", err)
	}
}
