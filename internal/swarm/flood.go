package swarm

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"viver.lan/internal/exchange"
	"viver.lan/internal/sleep"
	"viver.lan/internal/swarm/wire"
)

const (
	// workPerSecond is how much a connection may have us do beside moving
	// pieces, in units of what a HAVE costs: an honest one says HAVE once for
	// each piece, a thousand a second where the link is fast.
	workPerSecond = 2000
	// A connection may use workAtOnce and twice the number of pieces without a
	// pause.
	workAtOnce = 4000
	// hostWork is how many connections' worth an address may have us do each second: as
	// many as it may have, so that those that stay are never held back for each other.
	// At once it may use what one connection may: or each new one would bring as much.
	hostWork = exchange.MaxPerHost
	// floodLimit is how long a connection may be held back without a break
	// before it is closed.
	floodLimit = 20 * time.Second
)

// work holds back a connection that keeps us busy. Whoever sends too much is
// read from more slowly, so that it is the sender who waits.
type work struct {
	rate  *rate.Limiter
	host  *rate.Limiter // of its address
	since time.Duration // held back without a break
}

// newWork returns the limits of a new connection from a host; hosts are those of all.
func newWork(hosts *exchange.Rates, host netip.Addr, now time.Duration, pieces int) work {
	atOnce := workAtOnce + 2*pieces
	return work{rate: rate.NewLimiter(workPerSecond, atOnce), host: hosts.Of(host, now, hostWork*workPerSecond, atOnce)}
}

// costOf is what a message costs as such.
func costOf(m wire.Message, pieces int) int {
	const again = 200 // placement follows a new hello, a dial an address
	switch {
	case m.KeepAlive:
		return 1
	case m.Type == wire.Request, m.Type == wire.Piece: // what is not sent, or of no use, is counted when it is known
		return 0
	case m.Type == wire.Bitfield || m.Type == wire.HaveAll || m.Type == wire.HaveNone:
		return 2 + pieces/16
	case m.Type == wire.Choke || m.Type == wire.Unchoke:
		return 2 + pieces/64
	case m.Type == wire.Extended && (m.ExtendedID == wire.IDHandshake || m.ExtendedID == wire.IDPex):
		return again
	}
	return 1
}

// done counts what was done for a connection and waits until it may go on. Whoever
// is held back because of others of its address is not closed for it.
func (w *work) done(ctx context.Context, cost int, now time.Duration) error {
	wait, shared := charge(w.rate, cost, now), charge(w.host, cost, now)
	switch {
	case wait == 0:
		w.since = 0
	case w.since == 0:
		w.since = now
	case now-w.since > floodLimit:
		return errors.New("sends more messages than it may")
	}
	if wait = max(wait, shared); wait > 0 && sleep.For(ctx, wait) != nil {
		return ctx.Err()
	}
	return nil
}

// charge takes the cost from what is left, and returns how long that has to be waited
// for.
func charge(r *rate.Limiter, cost int, now time.Duration) time.Duration {
	return r.ReserveN(exchange.Clock(now), min(cost, r.Burst())).DelayFrom(exchange.Clock(now))
}
