package blockdaemon

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/cluster"
	"viver.lan/internal/control"
	"viver.lan/internal/event"
	"viver.lan/internal/operator"
	"viver.lan/internal/runes"
	"viver.lan/internal/vfield"
)

// addVolume adds what a volume says of itself.
func addVolume(s *control.Status, volume *vfield.Volume) {
	v := volume.Status()
	s.Transfer = event.Transfer{FromOrigin: v.FromOrigin, FromPeers: v.FromPeers, FromMedium: v.FromMedium, Sent: v.Sent,
		Have: v.Have, Pieces: v.Pieces, Peers: len(v.Peers)}
	s.Independence, s.Waiting = v.Independence, v.Waiting
	s.Pinned, s.Budget, s.Used, s.StoreError = v.Pinned, v.Budget, v.Used, v.Note
	s.OutOfReach, s.OriginAnswers = v.OutOfReach, v.OriginAnswers
	for _, p := range v.Peers {
		s.Peers = append(s.Peers, control.Peer{Address: p.Addr, State: control.PeerState(p.State), Origin: p.Origin, Ours: p.Ours, Client: p.Client, Have: p.Have,
			Downloaded: p.Downloaded, Uploaded: p.Uploaded, Proof: p.Proof})
	}
	s.Proofs = control.Proofs(v.Proofs)
	for _, f := range v.ProofFailures {
		s.ProofFailures = append(s.ProofFailures, control.ProofFailure{Peer: f.Peer, Machine: f.Machine, Reason: f.Reason, Piece: f.Piece, Seconds: f.Ago.Seconds()})
	}
}

// addMembers adds what a node knows of the others; members is nil for one that takes no part.
func addMembers(s *control.Status, members *cluster.Cluster) {
	if members == nil {
		return
	}
	s.Network, s.Overrides = members.Network(), members.Overrides()
	s.Members = memberStatus(members.Members(), s.Overrides)
	for _, x := range members.Strangers() {
		s.Strangers = append(s.Strangers, control.Stranger{Address: x.Addr, Name: x.Name, Reason: x.Reason})
	}
	for _, g := range members.Groups() {
		s.Groups = append(s.Groups, control.Group{Image: g.Infohash, Machines: g.Machines, Medium: g.Medium})
	}
}

// memberStatus lists the members, without those that are gone and whose machine
// is back under another key.
func memberStatus(members []cluster.Member, overrides []operator.Override) (list []control.Member) {
	settings, _ := operator.Machines(overrides) // the agent reports what is wrong
	for _, m := range members {
		if m.State != cluster.Alive && m.NameState == cluster.Disputed {
			continue
		}
		listed := control.Member{ID: m.ID, Hostname: m.Meta.Hostname, MAC: m.Meta.MAC, Address: m.Addr.Addr(),
			First: m.Meta.First, HTTPPort: m.Meta.HTTPPort, SwarmPort: m.Meta.SwarmPort, State: control.MemberState(m.State), Image: m.Meta.Infohash, HostKey: m.Meta.HostKey.String(),
			NameState: control.NameState(m.NameState), Network: m.Meta.Network, Live: m.Meta.Live.String(), Keeps: m.Meta.Keeps.String(),
			Memory: m.Meta.Memory, CPUs: m.Meta.CPUs, Features: m.Meta.Features, TakesRoles: m.Meta.TakesRoles, Roles: m.Meta.Claims}
		if m.NameState == cluster.Owned { // the operator spoke of the machine, not of whoever takes its name
			override := settings[m.Meta.MAC]
			listed.Name, listed.Reservation, listed.Labels = override.Name, override.Address, override.Labels
		}
		list = append(list, listed)
	}
	return list
}

// bootNetwork is this machine's place on its network. plugged says that the card has a
// carrier.
func bootNetwork(n bootnet.Network, plugged bool) *control.BootNetwork {
	l := n.Lease
	return &control.BootNetwork{Card: n.Card, Holder: n.Holder(), Plugged: plugged, Source: l.Source, Address: l.Address,
		Server: l.Server, Viver: l.Viver, Router: l.Router, DNS: l.DNS}
}

// bootRunes are the runes of which something went wrong at the boot. They are read once
// they are known, and stay.
type bootRunes struct {
	wrong atomic.Pointer[[]control.RuneOutcome]
}

func (b *bootRunes) read(file string) []control.RuneOutcome {
	if known := b.wrong.Load(); known != nil {
		return *known
	}
	results, err := control.ReadRunes(file)
	if err != nil {
		return nil // the boot has not come so far
	}
	var wrong []control.RuneOutcome
	for _, r := range results {
		if o := runes.Outcome(r.Outcome); o == runes.Broken || o == runes.Degraded {
			wrong = append(wrong, r.RuneOutcome)
		}
	}
	b.wrong.Store(&wrong)
	return wrong
}

// written says how full the overlay at root is, nil when none is mounted there.
// An overlay answers for the file system that its writable layer is on.
func written(root string) *control.Written {
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil || fs.Type != unix.OVERLAYFS_SUPER_MAGIC {
		return nil
	}
	block := uint64(fs.Bsize)
	return &control.Written{Size: fs.Blocks * block, Free: fs.Bavail * block, Files: fs.Files, FilesFree: fs.Ffree}
}
