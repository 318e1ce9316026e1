package dhcpclient

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/klog"
)

// How a machine looks for a foreign DHCP server that comes later: it listens all the
// time, which shows what servers broadcast, and asks every AskEvery, because many answer
// the asker alone. While the link is up for less than frequentFor it asks more often: the
// server may have been there all the time, behind a switch port that forwards late.
const (
	AskEvery    = 30 * time.Second
	OfferWait   = 4 * time.Second // a server may ping an address before it offers it
	frequentFor = stpDelay + 15*time.Second
)

// AskPause is the pause before the next DISCOVER on a link that has been up for that
// long: a sixteenth of every at first, then growing into it.
func AskPause(up, every time.Duration) time.Duration {
	return min(max(every/16, up-frequentFor), every)
}

// AwaitForeign waits until a DHCP server that is not VIVER's gives an address, or
// until ctx ends. It asks at least once in every, and when it hears such a server
// answer somebody else.
func AwaitForeign(ctx context.Context, link bootnet.Card, every time.Duration, log *slog.Logger) (bootnet.Lease, error) {
	c, err := newClient(link, log)
	if err != nil {
		return bootnet.Lease{}, err
	}
	defer c.close()
	n := newNegotiation(link.MAC, netip.Addr{}, log, klog.Uptime())
	n.accept, n.overhears = reply.isForeign, true
	n.pause = func(up time.Duration, _ int) time.Duration { return OfferWait + AskPause(up, every) }
	n.due = AskPause(0, every)
	return c.negotiate(ctx, n)
}

// isForeign reports whether the message gives or offers an address and is not
// from a VIVER boot host.
func (r reply) isForeign() bool {
	_, err := leaseFrom(r, 0)
	return err == nil && !r.fromViver()
}
