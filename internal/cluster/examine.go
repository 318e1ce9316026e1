package cluster

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"
)

// How a reported death is examined: the accused is asked three times. Of more than
// so many accused at once (a room was switched off) some are asked, and for the rest
// the others' word is taken after the same time; not while one of those asked answers,
// which shows that somebody errs or lies.
const (
	askEvery = 700 * time.Millisecond
	asks     = 3
	maxAsked = 16
)

// accusation is a death that the gossip reports and we do not believe yet.
// Anybody on the link can forge one, and a machine that was itself frozen
// reports the deaths of all others when it wakes.
type accusation struct {
	silent int // rounds without an answer
}

// examine asks those whose death is reported. Who does not answer is dead; who
// answers stays a member for as long as it does, and is visited, so that it
// learns what is said of it and objects.
func (c *Cluster) examine(ctx context.Context) error {
	for {
		accused := c.accusedNow()
		if len(accused) == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-c.doubt:
				continue
			}
		}
		round := time.NewTimer(askEvery)
		asked := accused[:min(len(accused), maxAsked)] // others each time
		answered := c.ask(asked)
		select {
		case <-ctx.Done():
			round.Stop()
			return nil
		case <-round.C:
		}
		c.judge(asked, answered)
	}
}

func (c *Cluster) accusedNow() (out []Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.accused {
		out = append(out, c.members[id])
	}
	return out
}

// ask pings members at once and returns those that answer within the probe's
// time-out.
func (c *Cluster) ask(who []Member) map[NodeID]bool {
	answered := make(map[NodeID]bool)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range who {
		wg.Go(func() {
			if _, err := c.list.Ping(string(m.ID), net.UDPAddrFromAddrPort(m.Addr)); err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answered[m.ID] = true
			c.visit(m.Addr)
		})
	}
	wg.Wait()
	return answered
}

// judge ends a round.
func (c *Cluster) judge(asked []Member, answered map[NodeID]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, a := range c.accused {
		if len(answered) > 0 && !slices.ContainsFunc(asked, func(m Member) bool { return m.ID == id }) {
			continue
		}
		a.silent++
		if answered[id] {
			a.silent = 0
		}
		if a.silent >= asks {
			m := c.members[id]
			m.State, m.Since = Dead, time.Now()
			c.publish(m)
		}
	}
}
