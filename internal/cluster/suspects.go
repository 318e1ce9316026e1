package cluster

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"viver.lan/internal/identity"
)

// How a reported death is confirmed: the suspect is probed three times. Of more
// suspects than maxSuspectsProbed at once (a room was switched off) some are probed,
// and for the rest the others' report is taken after the same time; not while one of
// those probed answers, which shows that somebody is wrong or lies.
const (
	suspectProbeEvery = 700 * time.Millisecond
	suspectProbes     = 3
	maxSuspectsProbed = 16
)

// suspicion is a death that the gossip reports and we do not believe yet.
// Anybody on the link can forge one, and a machine that was itself frozen
// reports the deaths of all others when it wakes.
type suspicion struct {
	missed int // probes in a row without an answer
}

// probeSuspects probes those whose death is reported. Who does not answer is dead;
// who answers stays a member for as long as it does, and is joined again, so that it
// learns what is said of it and refutes it.
func (c *Cluster) probeSuspects(ctx context.Context) error {
	for {
		suspects := c.suspectsNow()
		if len(suspects) == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-c.suspected:
				continue
			}
		}
		round := time.NewTimer(suspectProbeEvery)
		probed := suspects[:min(len(suspects), maxSuspectsProbed)] // others each time
		answered := c.probe(probed)
		select {
		case <-ctx.Done():
			round.Stop()
			return nil
		case <-round.C:
		}
		c.endRound(probed, answered)
	}
}

func (c *Cluster) suspectsNow() (out []Member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.suspects {
		out = append(out, c.members[id])
	}
	return out
}

// probe pings members at once and returns those that answer within memberlist's
// probe time-out.
func (c *Cluster) probe(members []Member) map[identity.ID]bool {
	answered := make(map[identity.ID]bool)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range members {
		wg.Go(func() {
			if _, err := c.list.Ping(m.ID.String(), net.UDPAddrFromAddrPort(m.Addr)); err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			answered[m.ID] = true
			c.queueJoin(m.Addr)
		})
	}
	wg.Wait()
	return answered
}

// endRound counts the probes without an answer, and declares dead who missed
// suspectProbes of them.
func (c *Cluster) endRound(probed []Member, answered map[identity.ID]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, s := range c.suspects {
		if len(answered) > 0 && !slices.ContainsFunc(probed, func(m Member) bool { return m.ID == id }) {
			continue
		}
		s.missed++
		if answered[id] {
			s.missed = 0
		}
		if s.missed >= suspectProbes {
			m := c.members[id]
			m.State, m.Since = m.Meta.state(Dead), time.Now()
			c.publish(m)
		}
	}
}
