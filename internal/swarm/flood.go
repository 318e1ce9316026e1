package swarm

import (
	"context"
	"errors"
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
	// floodLimit is how long a connection may be held back without a break
	// before it is closed.
	floodLimit = 20 * time.Second
)

// work holds back a connection that keeps us busy. Whoever sends too much is
// read from more slowly, so that it is the sender who waits.
type work struct {
	rate  *rate.Limiter
	since time.Duration // held back without a break
}

func newWork(pieces int) work {
	return work{rate: rate.NewLimiter(workPerSecond, workAtOnce+2*pieces)}
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

// done counts what was done for a connection and waits until it may go on.
func (w *work) done(ctx context.Context, cost int, now time.Duration) error {
	wait := w.rate.ReserveN(exchange.Clock(now), min(cost, w.rate.Burst())).DelayFrom(exchange.Clock(now))
	switch {
	case wait == 0:
		w.since = 0
		return nil
	case w.since == 0:
		w.since = now
	case now-w.since > floodLimit:
		return errors.New("sends more messages than it may")
	}
	if sleep.For(ctx, wait) != nil {
		return ctx.Err()
	}
	return nil
}
