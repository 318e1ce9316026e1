package main

import (
	"context"
	"net/netip"

	"viver.lan/internal/cluster"
	"viver.lan/internal/control"
	"viver.lan/internal/event"
	"viver.lan/internal/operator"
	"viver.lan/internal/piecestore"
	"viver.lan/internal/vfield"
)

// followMembers names the members of the cluster to the swarm as they come
// and go. origin is the address of the first node as this machine was told;
// without one, whoever says so is believed: nothing is given up for that.
func followMembers(ctx context.Context, c *cluster.Cluster, v *vfield.Volume, origin netip.Addr) error {
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
				v.AddPeer(addr, m.Meta.First && (!origin.IsValid() || addr.Addr() == origin))
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
		s.Network, s.Members = members.Network(), memberStatus(members)
		for _, x := range members.Strangers() {
			s.Strangers = append(s.Strangers, control.Stranger{Address: x.Addr.String(), Name: x.Name, Why: x.Reason})
		}
		for _, g := range members.Groups() {
			s.Groups = append(s.Groups, control.Group{Image: g.Infohash.String(), Machines: g.Machines, Medium: g.Medium})
		}
		s.Served = s.MediaNote()
	}
	for _, p := range v.Peers {
		s.Peers = append(s.Peers, control.Peer{Address: p.Addr.String(), Origin: p.Origin, Ours: p.Ours, Have: p.Have,
			Downloaded: p.Downloaded, Uploaded: p.Uploaded, Proof: p.Proof})
		if !p.Ours {
			s.Strangers = append(s.Strangers, control.Stranger{Address: p.Addr.String(), Name: p.Client, Why: "a connection for pieces that proved no key"})
		}
	}
	s.Proofs = control.Proofs(v.Proofs)
	for _, f := range v.ProofFailures {
		s.ProofFailures = append(s.ProofFailures, control.ProofFailure{Peer: f.Peer, Machine: f.Machine, Why: f.Why, Seconds: f.Ago.Seconds()})
	}
	return s
}

// memberStatus lists the members, without those that are gone and whose machine
// is back under another key.
func memberStatus(members *cluster.Cluster) (list []control.Member) {
	said, _ := operator.Machines(members.Entries()) // the agent reports what is wrong
	for _, m := range members.Members() {
		if m.State != cluster.Alive && m.Names == cluster.Disputed {
			continue
		}
		listed := control.Member{ID: m.ID, Hostname: m.Meta.Hostname, MAC: m.Meta.MAC, Address: m.Addr.Addr().String(),
			First: m.Meta.First, State: string(m.State), Image: m.Meta.Infohash.String(), HostKey: m.Meta.HostKey.String(),
			Standing: string(m.Names), Network: m.Meta.Network}
		if m.Names == cluster.Owned { // the operator spoke of the machine, not of whoever takes its name
			override := said[m.Meta.MAC]
			listed.Name = override.Name
			if override.Address.IsValid() {
				listed.Reservation = override.Address.String()
			}
		}
		list = append(list, listed)
	}
	return list
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
