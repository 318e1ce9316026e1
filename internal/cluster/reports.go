package cluster

import (
	"context"

	"viver.lan/internal/event"
	"viver.lan/internal/notify"
)

// reports are the members whose change is still to be logged and emitted. The log and
// the sinks of events may be slow or hang (the host of a virtual machine need not read
// them), and nothing of the gossip waits for them.
type reports struct {
	members []Member // guarded by Cluster.mu
	added   notify.Signal
}

// add has a member reported. Of more than maxMembers that wait, the oldest is dropped. It
// runs with Cluster.mu held.
func (r *reports) add(m Member) {
	if len(r.members) >= maxMembers {
		r.members = r.members[1:]
	}
	r.members = append(r.members, m)
	r.added.Send()
}

// report logs and emits changes of members until ctx ends.
func (c *Cluster) report(ctx context.Context) error {
	for {
		c.reportPending()
		select {
		case <-c.reports.added:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *Cluster) reportPending() {
	c.mu.Lock()
	pending := c.reports.members
	c.reports.members = nil
	c.mu.Unlock()
	for _, m := range pending {
		c.log.Info("member", "id", m.ID, "hostname", m.Meta.Hostname, "addr", m.Addr, "state", m.State, "other_image", m.otherImage)
		c.cfg.Events.Emit(event.Member{ID: m.ID, Joined: m.State == Alive})
	}
}
