package exchange

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"viver.lan/internal/copies"
	"viver.lan/internal/event"
	"viver.lan/internal/identity"
	"viver.lan/internal/schedule"
)

// PeerStatus describes one connection.
type PeerStatus struct {
	// Addr is where the peer listens, or where it called from.
	Addr netip.AddrPort
	// ID is the peer's name on the wire.
	ID     string
	Client string
	Origin bool
	// Ours says that it has proved the key of a node.
	Ours bool
	// Have is the number of pieces that it has.
	Have int
	// Budget is how many bytes it keeps.
	Budget int64
	// Downloaded from it and Uploaded to it, in bytes of payload.
	Downloaded uint64
	Uploaded   uint64
	// Proof is what the peer's answers to challenges have earned it; "" for those
	// who are not asked.
	Proof copies.Standing
	// State is "connected", "stalled" or "silent".
	State string
}

// Status returns the peers that have introduced themselves, in the order of their
// addresses, and the counts.
func (x *Exchange) Status() ([]PeerStatus, Stats) {
	var out []PeerStatus
	for _, p := range x.peers {
		if !p.ready || p.closing {
			continue // it may be a second connection to one that is listed
		}
		st := PeerStatus{
			Addr: p.Addr, ID: printable(p.ID[:]), Client: printable([]byte(p.hello.Client)), Origin: p.kind == schedule.Origin,
			Ours: p.proved, Have: x.table.PeerPieces(p.key).Count(), Budget: p.hello.Budget,
			Downloaded: p.downloaded, Uploaded: p.uploaded, State: x.stateOf(p),
		}
		if x.copies.peers[p.node] == p {
			st.Proof = x.copies.ledger.Standing(p.node)
		}
		if p.contact != nil {
			st.Addr = p.contact.addr
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b PeerStatus) int { return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.ID, b.ID)) })
	return out, x.stats
}

// stateOf is how a connection is, for PeerStatus.
func (x *Exchange) stateOf(p *peer) string {
	switch {
	case x.table.Stalled(p.key):
		return "stalled"
	case !x.live(p):
		return "silent"
	}
	return "connected"
}

// live reports whether the peer was heard from lately.
func (x *Exchange) live(p *peer) bool {
	return !p.closing && x.now-p.lastHeard < 3*KeepAlive
}

// answersWithin is the silence after which a peer does not count as
// answering. One of ours that is well says something every KeepAlive.
const answersWithin = 2 * KeepAlive

// Waiting tells why piece i is not here.
func (x *Exchange) Waiting(i int) event.Waiting {
	out := event.Waiting{Piece: i}
	for _, c := range x.contacts.all {
		if !c.self {
			out.Known++
		}
	}
	last, lastAsked := x.lastHeard, time.Duration(0)
	asked := x.table.Asked(i)
	for _, p := range x.peers {
		if p.contact == nil && !p.closing {
			out.Known++ // it called us and never said where it listens
		}
		last = max(last, p.lastHeard)
		if slices.Contains(asked, p.key) {
			lastAsked = max(lastAsked, p.lastHeard)
			out.Asked = append(out.Asked, p.name)
		}
		if !p.closing && x.now-p.lastHeard < answersWithin {
			out.Answering++
			if x.table.PeerPieces(p.key).Has(i) {
				out.Holders++
			}
		}
	}
	slices.Sort(out.Asked)
	if out.Reason = reasonOf(out, last > 0); out.Reason == event.Requested {
		last = lastAsked
	}
	if last > 0 {
		out.Silent = (x.now - last).Seconds()
	}
	return out
}

// reasonOf returns why a read waits. ever says that somebody has answered before.
func reasonOf(w event.Waiting, ever bool) event.WaitReason {
	switch {
	case w.Known == 0:
		return event.NoPeer
	case w.Answering == 0 && !ever:
		return event.NeverAnswered
	case w.Answering == 0:
		return event.NoAnswer
	case len(w.Asked) > 0:
		return event.Requested
	case w.Holders == 0:
		return event.NoHolder
	}
	return event.NoneSends
}

// OutOfReach returns how many pieces neither this node nor any live peer has,
// and whether the first node is among those.
func (x *Exchange) OutOfReach() (pieces int, origin bool) {
	var keys []schedule.Key
	for _, p := range x.peers {
		if x.live(p) && !x.table.Stalled(p.key) && !x.disproved(p) {
			keys = append(keys, p.key)
			origin = origin || p.kind == schedule.Origin
		}
	}
	return x.table.Uncovered(keys), origin
}

// printable replaces what a peer might put into its name to confuse a reader.
func printable(b []byte) string {
	out := make([]byte, 0, len(b))
	for _, c := range b[:min(len(b), 40)] {
		if c < ' ' || c > '~' {
			c = '.'
		}
		out = append(out, c)
	}
	return string(out)
}

// Claim is what a peer says that it keeps. It counts only as far as it is proved.
type Claim struct {
	// Budget is how many bytes of pieces it keeps.
	Budget int64
	// Pieces are those it has.
	Pieces schedule.Set
}

// Neighbour is a live peer as placement sees it.
type Neighbour struct {
	// ID is that of the node, once it has proved its key; zero for a stranger.
	ID   identity.ID
	Kind schedule.Kind
	// Machine is what it runs on, as far as can be told from here.
	Machine string
	// Stalled peers owe data and send none.
	Stalled bool
	// Claim is what it says that it keeps.
	Claim Claim
	// Counts says that its claim counts as copies: the peer proves again and
	// again some of it, and no other peer of its machine counts already. Place
	// says that pieces may be left to it to keep; see package copies for both.
	Counts, Place bool
	// Untested says that it claims pieces, and none that this node holds too: so
	// nothing can be asked of it.
	Untested bool
	// Proved are the pieces of which it proved each one not long ago.
	Proved schedule.Set
}

// Neighbours returns the peers that were heard from lately, in no order.
func (x *Exchange) Neighbours() []Neighbour {
	var out []Neighbour
	for _, p := range x.peers {
		if p.ready && x.live(p) {
			out = append(out, x.neighbour(p))
		}
	}
	return out
}

func (x *Exchange) neighbour(p *peer) Neighbour {
	ledger, id := x.copies.ledger, p.node
	n := Neighbour{ID: id, Kind: p.kind, Machine: p.Machine, Stalled: x.table.Stalled(p.key), Counts: ledger.Counts(id), Place: ledger.Place(id),
		Claim:  Claim{Budget: p.hello.Budget, Pieces: x.table.PeerPieces(p.key).Clone()},
		Proved: schedule.NewSet(x.cfg.Image.Pieces)}
	if ledger.Standing(id) == copies.Unproved && n.Claim.Pieces.Count() > 0 {
		_, common := n.Claim.Pieces.Common(x.table.Held(), func(int) int { return 0 })
		n.Untested = !common
	}
	for _, i := range ledger.ProvedPieces(id, x.now) {
		n.Proved.Set(i, n.Claim.Pieces.Has(i))
	}
	return n
}
