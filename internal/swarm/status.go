package swarm

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

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
	Node identity.ID `json:"node,omitempty"`
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
func (s *Swarm) Status() ([]PeerStatus, Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []PeerStatus
	for k, p := range s.peers {
		if !p.ready || p.closing {
			continue // it may be a second connection to one that is listed
		}
		st := PeerStatus{
			Addr: p.addr, ID: printable(p.id[:]), Client: printable([]byte(p.hello.Client)), Origin: p.kind == schedule.Origin,
			Ours: p.proved, Node: p.node, Have: s.table.PeerPieces(k).Count(), Budget: p.hello.Budget,
			Downloaded: p.downloaded, Uploaded: p.uploaded, State: "connected",
		}
		if s.copies.peers[p.nodeID()] == p {
			st.Proof = s.copies.ledger.Standing(p.nodeID()).String()
		}
		if p.contact != nil {
			st.Addr = p.contact.addr
		}
		if s.table.Stalled(k) {
			st.State = "stalled"
		} else if !s.live(p) {
			st.State = "silent"
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b PeerStatus) int { return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.ID, b.ID)) })
	return out, s.stats
}

// live reports whether the peer was heard from lately.
func (s *Swarm) live(p *peer) bool {
	return !p.closing && s.now().Nanoseconds()-p.lastHeard.Load() < (3*keepAlive).Nanoseconds()
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
// answering. One of ours that is well says something every keepAlive.
const answersWithin = 2 * keepAlive

// Prospect tells how things stand with piece i.
func (s *Swarm) Prospect(i int) Prospect {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	var out Prospect
	for _, c := range s.contacts {
		if !c.self {
			out.Known++
		}
	}
	last := s.lastHeard
	asked, _ := s.table.Asked(i)
	for k, p := range s.peers {
		if p.contact == nil {
			out.Known++ // it called us and never said where it listens
		}
		heard := time.Duration(p.lastHeard.Load())
		last = max(last, heard)
		if slices.Contains(asked, k) {
			if silent := now - heard; len(out.Asked) == 0 || silent < out.Silent {
				out.Silent = silent
			}
			out.Asked = append(out.Asked, p.name)
		}
		if !p.closing && now-heard < answersWithin {
			out.Answering++
			if s.table.PeerPieces(k).Has(i) {
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

// String says it in words: "3 peers known, none answers since 14 s".
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
		return known + ", none answers since " + seconds(p.Quiet)
	case len(p.Asked) > 0 && p.Silent > silentFor:
		return fmt.Sprintf("%s, asked %s, silent since %s", known, strings.Join(p.Asked, " and "), seconds(p.Silent))
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
func (s *Swarm) OutOfReach() (pieces int, origin bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []schedule.Key
	for k, p := range s.peers {
		if s.live(p) && !s.table.Stalled(k) && !s.disproved(p) {
			keys = append(keys, k)
			origin = origin || p.kind == schedule.Origin
		}
	}
	return s.table.Uncovered(keys, true), origin
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
