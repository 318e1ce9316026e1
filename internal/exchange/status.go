package exchange

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"viver.lan/internal/copies"
	"viver.lan/internal/identity"
	"viver.lan/internal/schedule"
)

// PeerStatus describes one connection.
type PeerStatus struct {
	// Addr is where the peer listens, or where it called from.
	Addr netip.AddrPort `json:"addr"`
	// ID is the peer's name on the wire.
	ID     string `json:"id"`
	Client string `json:"client"`
	Origin bool   `json:"origin"`
	// Ours says that it has proved the key of one of our nodes, Node which.
	Ours bool        `json:"ours"`
	Node identity.ID `json:"node,omitzero"`
	// Have is the number of pieces that it has.
	Have int `json:"have"`
	// Budget is how many bytes it keeps.
	Budget int64 `json:"budget"`
	// Downloaded from it and Uploaded to it, in bytes of payload.
	Downloaded uint64 `json:"downloaded"`
	Uploaded   uint64 `json:"uploaded"`
	// Proof is what the peer's answers to challenges have earned it: "unproved",
	// "proved" or "failed"; "" for those who are not asked.
	Proof string `json:"proof,omitempty"`
	// State is "connected", "stalled" or "silent".
	State string `json:"state"`
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
			Ours: p.proved, Node: p.node, Have: x.table.PeerPieces(p.key).Count(), Budget: p.hello.Budget,
			Downloaded: p.downloaded, Uploaded: p.uploaded, State: "connected",
		}
		if x.copies.peers[p.node] == p {
			st.Proof = x.copies.ledger.Standing(p.node).String()
		}
		if p.contact != nil {
			st.Addr = p.contact.addr
		}
		if x.table.Stalled(p.key) {
			st.State = "stalled"
		} else if !x.live(p) {
			st.State = "silent"
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b PeerStatus) int { return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.ID, b.ID)) })
	return out, x.stats
}

// live reports whether the peer was heard from lately.
func (x *Exchange) live(p *peer) bool {
	return !p.closing && x.now-p.lastHeard < 3*KeepAlive
}

// Prospect is what can be said about piece i to somebody who waits for it.
type Prospect struct {
	// Known counts the peers known, connected or not; Answering those that are
	// connected and said something lately; Holders those of them that have the
	// piece.
	Known, Answering, Holders int
	// Asked names the connected peers that the piece is asked of, Silent says
	// for how long they all have said nothing.
	Asked  []string
	Silent time.Duration
	// Quiet is the time since any peer at all said something; 0 when none ever
	// has.
	Quiet time.Duration
}

// answersWithin is the silence after which a peer does not count as
// answering. One of ours that is well says something every KeepAlive.
const answersWithin = 2 * KeepAlive

// Prospect tells how things stand with piece i.
func (x *Exchange) Prospect(i int) Prospect {
	now := x.now
	var out Prospect
	for _, c := range x.contacts.all {
		if !c.self {
			out.Known++
		}
	}
	last := x.lastHeard
	asked, _ := x.table.Asked(i)
	for _, p := range x.peers {
		if p.contact == nil && !p.closing {
			out.Known++ // it called us and never said where it listens
		}
		heard := p.lastHeard
		last = max(last, heard)
		if slices.Contains(asked, p.key) {
			if silent := now - heard; len(out.Asked) == 0 || silent < out.Silent {
				out.Silent = silent
			}
			out.Asked = append(out.Asked, p.who)
		}
		if !p.closing && now-heard < answersWithin {
			out.Answering++
			if x.table.PeerPieces(p.key).Has(i) {
				out.Holders++
			}
		}
	}
	slices.Sort(out.Asked)
	if last > 0 {
		out.Quiet = now - last
	}
	return out
}

// String says it in words: "3 peers known, no answer for 14 s".
func (p Prospect) String() string {
	known := fmt.Sprintf("%d peers known", p.Known)
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.0f s", d.Seconds()) }
	switch p.Known {
	case 0:
		return "no peer is known"
	case 1:
		known = "1 peer known"
	}
	switch {
	case p.Answering == 0 && p.Quiet == 0:
		return known + ", none has answered yet"
	case p.Answering == 0:
		return known + ", no answer for " + seconds(p.Quiet)
	case len(p.Asked) > 0 && p.Silent > silentFor:
		return fmt.Sprintf("%s, asked %s, no answer for %s", known, strings.Join(p.Asked, " and "), seconds(p.Silent))
	case len(p.Asked) > 0:
		return fmt.Sprintf("%s, asked %s", known, strings.Join(p.Asked, " and "))
	case p.Holders == 0:
		return fmt.Sprintf("%s, %d %s, none has it", known, p.Answering, verb(p.Answering, "answers", "answer"))
	}
	return fmt.Sprintf("%s, %d %s it, none takes a request", known, p.Holders, verb(p.Holders, "has", "have"))
}

// silentFor is the silence of who is asked that is worth a word.
const silentFor = 2 * time.Second

func verb(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
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
	return x.table.Uncovered(keys, true), origin
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
