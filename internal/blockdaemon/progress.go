package blockdaemon

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"viver.lan/internal/vfield"
)

// When a volume that stands alone says how it goes.
const (
	progressEvery = time.Second
	fetchingLog   = 5 * time.Second  // between log lines while it fetches
	silenceLog    = 30 * time.Second // between log lines while nobody answers
)

// progress is how far a node is, at one moment.
type progress struct {
	at           time.Time
	have, pieces int
	peers        int
	received     uint64
	sent         uint64
}

func progressOf(v vfield.Status, at time.Time) progress {
	return progress{at: at, have: v.Have, pieces: v.Pieces, peers: len(v.Peers),
		received: v.FromOrigin + v.FromPeers + v.FromMedium, sent: v.Sent}
}

// rate in bytes per second since before.
func (p progress) rate(before progress) float64 {
	return float64(p.received-before.received) / max(p.at.Sub(before.at).Seconds(), 1e-3)
}

// line tells people how far this is.
func (p progress) line(before progress) string {
	return fmt.Sprintf("%d of %d pieces (%d %%), %.1f MB/s, sent %.1f MB, %d peers", p.have, p.pieces,
		100*p.have/max(p.pieces, 1), p.rate(before)/1e6, float64(p.sent)/1e6, p.peers)
}

// reporter tells people how a fetch goes: on a terminal all the time, in the log
// while the image is fetched, and whenever nobody is there who could send it.
type reporter struct {
	screen  *screen
	log     *slog.Logger
	every   time.Duration // between log lines while it fetches
	waitFor string        // why there is no peer, while there is none

	first, last, logged progress
	complete            bool
	alone, complained   time.Time // since when no peer is connected, and when that was said
}

// report follows the volume until ctx ends.
func (s *standalone) report(ctx context.Context) error {
	now := progressOf(s.volume.Status(), time.Now())
	r := &reporter{screen: s.screen, log: s.log, every: fetchingLog, waitFor: s.options.waitFor(),
		first: now, last: now, logged: now, complete: now.have == now.pieces}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case at := <-tick.C:
			if s.store.Budget() < s.info.Size { // it is never complete
				r.every = silenceLog
			}
			r.report(progressOf(s.volume.Status(), at))
		}
	}
}

func (r *reporter) report(p progress) {
	r.screen.show(p.line(r.last))
	r.last = p
	if r.complete {
		return
	}
	if p.peers > 0 {
		r.alone = time.Time{}
	}
	switch {
	case p.have == p.pieces:
		r.complete = true
		r.log.Info("complete", "pieces", p.pieces, "seconds", p.at.Sub(r.first.at).Round(100*time.Millisecond).Seconds())
	case p.peers == 0:
		r.reportAlone(p)
	case p.received != r.logged.received && p.at.Sub(r.logged.at) >= r.every && r.screen.columns == nil:
		r.log.Info("fetching", "have", p.have, "pieces", p.pieces, "mb_per_second", fmt.Sprintf("%.1f", p.rate(r.logged)/1e6), "peers", p.peers)
		r.logged = p
	}
}

// reportAlone complains when no peer is connected, now and then.
func (r *reporter) reportAlone(p progress) {
	if r.alone.IsZero() {
		r.alone = p.at
	}
	if p.at.Sub(r.alone) >= fetchingLog && p.at.Sub(r.complained) >= silenceLog {
		r.complained = p.at
		r.log.Warn(r.waitFor, "have", p.have, "pieces", p.pieces)
	}
}

// waitFor says for whom a node waits that has no peer.
func (o *Options) waitFor() string {
	var asked []string
	for _, list := range []Addresses{o.Origins, o.Peers, o.Seeds} {
		for _, a := range list {
			asked = append(asked, a.String())
		}
	}
	if len(asked) == 0 {
		return "waiting for somebody to connect: no --origin, --peer or --seed says whom to ask"
	}
	return "no answer from " + strings.Join(asked, ", ") + "; asking again and again"
}
