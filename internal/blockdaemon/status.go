package blockdaemon

import (
	"viver.lan/internal/cluster"
	"viver.lan/internal/control"
	"viver.lan/internal/event"
	"viver.lan/internal/operator"
	"viver.lan/internal/vfield"
)

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
	said, _ := operator.Machines(members.Overrides()) // the agent reports what is wrong
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
