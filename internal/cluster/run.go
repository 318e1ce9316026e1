package cluster

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/sleep"
)

// How many addresses one attempt tries: they are tried one after the other,
// each for up to 3 s.
const (
	triesAlone     = 6
	triesInCompany = 2
)

// Run joins the cluster and keeps joining: while this machine is alone it tries
// its seeds and everybody it has known, soon and then less often; in company it
// still tries those who are gone, because they may be the other half of a
// divided network; and always those whose beacons it hears. It returns nil when
// ctx ends, with the gossip closed.
func (c *Cluster) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.rejoin(ctx) })
	g.Go(func() error { return c.joinQueued(ctx) })
	g.Go(func() error { return c.beacons(ctx) })
	g.Go(func() error { return c.probeSuspects(ctx) })
	g.Go(func() error { return c.chooseNetwork(ctx) })
	g.Go(func() error { return c.maintainNames(ctx) })
	g.Go(func() error { return c.writeReports(ctx) })
	_ = g.Wait() // they end with ctx only
	err := c.Close()
	c.writePending()
	return err
}

// maintainNames gives names to others: soon after the members changed, and when
// owners that are gone have kept them for long enough.
func (c *Cluster) maintainNames(ctx context.Context) error {
	for n := 0; sleep.For(ctx, time.Second) == nil; n++ {
		c.mu.Lock()
		if c.namesStale || n%10 == 0 {
			c.refreshNames(time.Now())
		}
		c.mu.Unlock()
	}
	return nil
}

// rejoin tries to reach those who are not there.
func (c *Cluster) rejoin(ctx context.Context) error {
	const firstPause = 500 * time.Millisecond
	pause := firstPause
	for {
		targets, alone := c.targets()
		if len(targets) > 0 {
			c.join(ctx, targets...)
			targets, alone = c.targets()
		}
		rest, wake := c.cfg.retryEvery, (<-chan struct{})(nil)
		switch {
		case !alone:
			pause = firstPause
		case len(targets) == 0:
			wake = c.wake // until there is somebody new to try
		default:
			rest = pause
			pause = min(2*pause, c.cfg.retryEvery)
		}
		t := time.NewTimer(sleep.Jitter(rest))
		select {
		case <-t.C:
		case <-wake:
			t.Stop()
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// queueJoin has joinQueued join an address. With too many waiting, it is dropped:
// the next beacon names it again.
func (c *Cluster) queueJoin(addr netip.AddrPort) {
	select {
	case c.joinQueue <- addr:
	default:
	}
}

// joinQueued joins those whose beacons were heard. Everybody in a room hears the same
// one, so each waits for a random moment first; most then find that another was there
// before them and told the rest.
func (c *Cluster) joinQueued(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case addr := <-c.joinQueue:
			c.mu.Lock()
			wait := time.Duration(c.othersAlive()) * 50 * time.Millisecond
			c.mu.Unlock()
			if wait > 0 && sleep.For(ctx, rand.N(min(wait, 5*time.Second))) != nil {
				return nil
			}
			c.mu.Lock()
			known := c.aliveAt(addr)
			c.mu.Unlock()
			if !known {
				c.join(ctx, addr)
			}
		}
	}
}

func (c *Cluster) join(ctx context.Context, targets ...netip.AddrPort) {
	for _, t := range targets {
		if ctx.Err() != nil {
			return
		}
		n, err := c.list.Join([]string{t.String()})
		c.log.Debug("tried to join", "target", t, "reached", n == 1, "error", err)
	}
}

// size returns how many members are alive, this machine included.
func (c *Cluster) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.othersAlive() + 1
}

// othersAlive returns how many others are alive. It runs with c.mu held.
func (c *Cluster) othersAlive() (n int) {
	for _, m := range c.members {
		if m.State == Alive && !m.Self {
			n++
		}
	}
	return n
}

// aliveAt reports whether a member that is no suspect has the address. It runs with
// c.mu held.
func (c *Cluster) aliveAt(addr netip.AddrPort) bool {
	for id, m := range c.members {
		if m.Addr == addr && m.State == Alive && c.suspects[id] == nil {
			return true
		}
	}
	return false
}

// targets picks addresses to try next, and reports whether nobody else is
// alive as far as we know.
func (c *Cluster) targets() (targets []netip.AddrPort, alone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	alone = c.othersAlive() == 0
	if c.left {
		return nil, alone // joining again would take the goodbye back
	}
	skip := make(map[netip.AddrPort]bool)
	for _, m := range c.members {
		skip[m.Addr] = m.State == Alive
	}
	add := func(a netip.AddrPort) {
		if !skip[a] && a.Addr() != c.cfg.Bind {
			skip[a] = true
			targets = append(targets, a)
		}
	}
	for _, s := range c.seeds {
		add(s)
	}
	for _, m := range c.members {
		if m.State == Dead {
			add(m.Addr)
		}
	}
	rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	limit := triesInCompany
	if alone {
		limit = triesAlone
	}
	return targets[:min(limit, len(targets))], alone
}
