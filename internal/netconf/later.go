package netconf

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/klog"
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

// awaitForeign waits until a DHCP server that is not VIVER's gives an address, or
// until ctx ends. It asks at least once in every, and when it hears such a server
// answer somebody else.
func awaitForeign(ctx context.Context, link bootnet.Link, every time.Duration, log *slog.Logger) (bootnet.Lease, error) {
	c, err := newClient(link, log)
	if err != nil {
		return bootnet.Lease{}, err
	}
	defer c.close()
	n := newNegotiation(link.MAC, netip.Addr{}, log, klog.Uptime())
	n.accept, n.watch = reply.foreign, true
	n.pause = func(up time.Duration, _ int) time.Duration { return askServersWait + askPause(up, every) }
	n.due = askPause(0, every)
	return c.negotiate(ctx, n)
}

// foreign reports whether the message gives or offers an address and is not
// from a VIVER boot host.
func (r reply) foreign() bool {
	_, err := leaseFrom(r, 0)
	return err == nil && !r.marked()
}
