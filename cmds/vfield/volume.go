package main

import (
	"context"
	"net/netip"
	"strings"

	"viver.lan/internal/cluster"
	"viver.lan/internal/control"
	"viver.lan/internal/event"
	"viver.lan/internal/operator"
	"viver.lan/internal/piecestore"
	"viver.lan/internal/vfield"
)

// followMembers names the members of the cluster to the swarm as they come
// and go.
func followMembers(ctx context.Context, c *cluster.Cluster, v *vfield.Volume) error {
	changes, stop := c.Watch()
	defer stop()
	known := make(map[netip.AddrPort]bool)
	for {
		now := make(map[netip.AddrPort]bool)
		nodes := 1
		for _, m := range c.Peers() {
			if !m.Meta.First {
				nodes++
			}
			addr := netip.AddrPortFrom(m.Addr.Addr(), m.Meta.SwarmPort)
			now[addr] = true
			if !known[addr] {
				v.AddPeer(addr, m.Meta.First)
			}
		}
		v.SetNodes(nodes)
		for addr := range known {
			if !now[addr] {
				v.RemovePeer(addr)
			}
		}
		known = now
		select {
		case <-ctx.Done():
			return nil
		case <-changes:
		}
	}
}

// keeps returns how many bytes a node tells the others that it keeps for them.
func keeps(store *piecestore.Store, first bool) int64 {
	if first {
		return 0 // it may leave
	}
	return store.Budget()
}

// volumeStatus is what a volume and its membership, if it has one, say of
// themselves.
func volumeStatus(volume *vfield.Volume, members *cluster.Cluster) control.Status {
	v := volume.Status()
	s := control.Status{
		Transfer: event.Transfer{FromOrigin: v.FromOrigin, FromPeers: v.FromPeers, FromMedium: v.FromMedium, Sent: v.Sent,
			Have: v.Have, Pieces: v.Pieces, Peers: len(v.Peers)},
		Independence: v.Independence,
		Pinned:       v.Pinned,
		Replicas:     v.Replicas,
		Budget:       v.Budget,
		Used:         v.Used,
		Note:         v.Note,
		Waiting:      v.Waiting,
		OutOfReach:   v.OutOfReach,
		Missing:      v.Missing,
	}
	if members != nil {
		said, _ := operator.Machines(members.Entries()) // the agent reports what is wrong
		for _, m := range members.Members() {
			word := said[strings.ToLower(string(m.ID))]
			listed := control.Member{Hostname: m.Meta.Hostname, Name: word.Name, MAC: string(m.ID), Address: m.Addr.Addr().String(),
				First: m.Meta.First, State: string(m.State), Image: m.Meta.Infohash.String(), HostKey: m.Meta.HostKey.String()}
			if word.Address.IsValid() {
				listed.Pinned = word.Address.String()
			}
			s.Members = append(s.Members, listed)
		}
		for _, g := range members.Groups() {
			s.Groups = append(s.Groups, control.Group{Image: g.Infohash.String(), Machines: g.Machines, Medium: g.Medium})
		}
		s.Served = s.MediaNote()
	}
	for _, p := range v.Peers {
		s.Peers = append(s.Peers, control.Peer{Address: p.Addr.String(), Origin: p.Origin, Have: p.Have,
			Downloaded: p.Downloaded, Uploaded: p.Uploaded})
	}
	return s
}

// section is one file of the payload, as an nbd.Backend.
type section struct {
	volume       *vfield.Volume
	offset, size int64
}

// ReadAt implements nbd.Backend.
func (s section) ReadAt(ctx context.Context, p []byte, off int64) error {
	return s.volume.ReadAt(ctx, p, s.offset+off)
}

// Size implements nbd.Backend.
func (s section) Size() int64 { return s.size }

// readerAt reads the volume for one request.
type readerAt struct {
	ctx    context.Context
	volume *vfield.Volume
}

// ReadAt implements io.ReaderAt.
func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	if left := r.volume.Size() - off; int64(len(p)) > left {
		p = p[:max(left, 0)]
	}
	if err := r.volume.ReadAt(r.ctx, p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}
