package cluster

import (
	"context"

	"viver.lan/internal/notify"
)

// reports are lines for the log and events that are still to be written. The log and the
// sinks of events may be slow or hang (the host of a virtual machine need not read them),
// and nothing of the gossip waits for them.
type reports struct {
	pending []func() // guarded by Cluster.mu
	added   notify.Signal
}

// maxReports bounds how many wait: one for each member.
const maxReports = maxMembers

// add has write called soon, without Cluster.mu. Of more than maxReports that wait, the
// oldest is dropped. It runs with Cluster.mu held.
func (r *reports) add(write func()) {
	if len(r.pending) >= maxReports {
		r.pending = r.pending[1:]
	}
	r.pending = append(r.pending, write)
	r.added.Send()
}

// writeReports writes what is reported until ctx ends.
func (c *Cluster) writeReports(ctx context.Context) error {
	for {
		c.writePending()
		select {
		case <-c.reports.added:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *Cluster) writePending() {
	c.mu.Lock()
	pending := c.reports.pending
	c.reports.pending = nil
	c.mu.Unlock()
	for _, write := range pending {
		write()
	}
}
