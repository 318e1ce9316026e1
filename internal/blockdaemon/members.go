package blockdaemon

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/cluster"
	"viver.lan/internal/control"
	"viver.lan/internal/manifest"
	"viver.lan/internal/piecestore"
	"viver.lan/internal/vfield"
)

// follow calls f now and whenever the membership changes, until f is done or ctx
// ends.
func follow(ctx context.Context, c *cluster.Cluster, f func() (done bool)) error {
	changed, stop := c.Watch()
	defer stop()
	for !f() {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
	return nil
}

// FollowMembers names the members of the cluster that keep an image to its swarm as they
// come and go. origin is the address of the first node as this machine was told;
// without one, whoever says so is believed: nothing is given up for that.
func FollowMembers(ctx context.Context, c *cluster.Cluster, v *vfield.Volume, image manifest.Infohash, origin netip.Addr) error {
	known := make(map[netip.AddrPort]bool)
	return follow(ctx, c, func() bool {
		now := make(map[netip.AddrPort]bool)
		nodes := 1
		for _, m := range c.Peers() {
			port, ok := control.Member{Image: m.Meta.Infohash, SwarmPort: m.Meta.SwarmPort, Keeps: m.Meta.Keeps.String()}.PeerFor(image)
			if !ok {
				continue
			}
			// The machine with the medium has a second image as any other has it.
			first := m.Meta.First && m.Meta.Infohash == image
			if !first {
				nodes++
			}
			addr := netip.AddrPortFrom(m.Addr.Addr(), port)
			now[addr] = true
			if !known[addr] {
				v.AddPeer(addr, first && (!origin.IsValid() || addr.Addr() == origin))
			}
		}
		v.SetNodes(nodes)
		for addr := range known {
			if !now[addr] {
				v.RemovePeer(addr)
			}
		}
		known = now
		return false
	})
}

// sharedBudget is how many bytes of pieces a node tells the others that it keeps
// for them.
func sharedBudget(store *piecestore.Store, first bool) int64 {
	if first {
		return 0 // it may leave
	}
	return store.Budget()
}

// goodbyeTime bounds how long a volume that is told to end waits until the others know.
const goodbyeTime = 3 * time.Second

// takePart runs the membership until ctx ends, and says goodbye then: the others need
// not find out that this member is gone, and its name is free at once.
func takePart(ctx context.Context, c *cluster.Cluster, log *slog.Logger) error {
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var g errgroup.Group
	g.Go(func() error { return c.Run(running) })
	<-ctx.Done()
	leaving, cancel := context.WithTimeout(running, goodbyeTime)
	defer cancel()
	if err := c.Leave(leaving); err != nil {
		log.Debug("the other members were not told that this one ends", "error", err)
	}
	end()
	return g.Wait()
}
