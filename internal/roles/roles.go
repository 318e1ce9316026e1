// Package roles decides which nodes hold which roles of the runes, from nothing but
// the live members, what they say of themselves, and the operator's pins.
//
// It is pure, so every node that knows the same members comes to the same answer
// without asking anybody; nodes that know different ones come to different answers for
// as long. It neither knows who is alive nor starts anything. A role may be held twice
// for a moment, or in each half of a network that is cut in two: it is no lock. The
// invariant: who claims a role keeps it while it may hold it and not more claim it than
// are wanted, so a node that joins moves nothing, and one that dies only what it held.
package roles

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"slices"

	"viver.lan/internal/ether"
	"viver.lan/internal/identity"
)

// Offer is a role that a rune has to give away. Its JSON is what the runner leaves for
// others, see docs/roles.md.
type Offer struct {
	Name  Name   `json:"name"`
	Count Count  `json:"wants"`
	Needs []Need `json:"needs,omitempty"` // all of them hold for each holder
	// Bound is the feature whose owners alone ever hold the role, "" for none.
	Bound string `json:"bound,omitempty"`
}

// Node is a live member that takes roles and whose names are its own.
type Node struct {
	ID       identity.ID
	MAC      ether.MAC
	Hostname string
	First    bool   // it has the medium
	Memory   uint64 // bytes
	CPUs     int
	Features []string // see Features
	Labels   []string // that the operator gave it
	Claims   []Name   // roles that it holds now
}

// Pin is where the operator wants a role: the machines of the list hold it, those of
// them that are alive, and no others. It overrules the count and the needs of the
// offer, but not what the role is bound to.
type Pin struct{ On []ether.MAC }

// Pins are the roles that the operator has pinned.
type Pins map[Name]Pin

// Assignment says who shall hold each role, in the order of the IDs. Each role that is
// offered is there.
type Assignment map[Name][]identity.ID

// Of returns the roles that a node shall hold, in the order of their names.
func (a Assignment) Of(id identity.ID) (names []Name) {
	for name, holders := range a {
		if slices.Contains(holders, id) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, Name.Compare)
	return names
}

// Assign decides who holds the roles. The order of its input does not matter. Of a role
// that is offered twice one offer counts.
//
// The holders of a role are first those who claim it, then others, both in a fixed order
// that follows from the role and the IDs. First is held by a node with the medium
// whenever there is one: which machine that is, is a fact and not a choice.
func Assign(offers []Offer, nodes []Node, pins Pins) Assignment {
	offers, nodes = unique(offers, Offer.compare), unique(nodes, Node.compare)
	a := make(Assignment, len(offers))
	var rest []Offer
	for _, o := range offers {
		if _, decided := a[o.Name]; decided {
			continue
		}
		a[o.Name] = nil
		if o.Count.kind == others {
			rest = append(rest, o)
			continue
		}
		a[o.Name] = o.holders(nodes, pins)
	}
	// Roles for the others of a rune do not count as its other roles.
	busy := make(map[string]map[identity.ID]bool)
	for name, holders := range a {
		if busy[name.Rune] == nil {
			busy[name.Rune] = make(map[identity.ID]bool)
		}
		for _, id := range holders {
			busy[name.Rune][id] = true
		}
	}
	for _, o := range rest {
		free := nodes
		if _, pinned := pins[o.Name]; !pinned {
			free = filter(nodes, func(n Node) bool { return !busy[o.Name.Rune][n.ID] })
		}
		a[o.Name] = o.holders(free, pins)
	}
	return a
}

// holders returns who of these nodes holds the role.
func (o Offer) holders(nodes []Node, pins Pins) (ids []identity.ID) {
	count := o.Count
	if pin, pinned := pins[o.Name]; pinned {
		nodes = filter(nodes, func(n Node) bool { return slices.Contains(pin.On, n.MAC) && o.mayHold(n) })
		count = Count{kind: all}
	} else {
		nodes = filter(nodes, func(n Node) bool { return o.mayHold(n) && o.MetBy(n) })
	}
	if withMedium := filter(nodes, func(n Node) bool { return n.First }); count.kind == first && len(withMedium) > 0 {
		nodes = withMedium
	}
	for _, n := range o.ranked(nodes)[:count.of(len(nodes))] {
		ids = append(ids, n.ID)
	}
	slices.SortFunc(ids, identity.ID.Compare)
	return ids
}

// mayHold reports whether a node has what the role is bound to.
func (o Offer) mayHold(n Node) bool { return o.Bound == "" || slices.Contains(n.Features, o.Bound) }

// MetBy reports whether a node meets the needs of the role.
func (o Offer) MetBy(n Node) bool {
	return !slices.ContainsFunc(o.Needs, func(need Need) bool { return !need.metBy(n) })
}

// ranked orders nodes by who holds the role first (rendezvous hashing).
func (o Offer) ranked(nodes []Node) []Node {
	type ranked struct {
		Node
		claims bool
		score  [sha256.Size]byte
	}
	list := make([]ranked, len(nodes))
	for i, n := range nodes {
		list[i] = ranked{n, slices.Contains(n.Claims, o.Name), sha256.Sum256([]byte(o.Name.String() + " " + n.ID.String()))}
	}
	slices.SortFunc(list, func(a, b ranked) int {
		if a.claims != b.claims {
			if a.claims {
				return -1
			}
			return 1
		}
		return bytes.Compare(a.score[:], b.score[:])
	})
	out := make([]Node, len(list))
	for i, r := range list {
		out[i] = r.Node
	}
	return out
}

func (o Offer) compare(other Offer) int {
	return cmp.Or(o.Name.Compare(other.Name), cmp.Compare(o.Count.String(), other.Count.String()), cmp.Compare(o.Bound, other.Bound),
		slices.CompareFunc(o.Needs, other.Needs, func(a, b Need) int { return cmp.Compare(a.String(), b.String()) }))
}

func (n Node) compare(other Node) int { return n.ID.Compare(other.ID) }

// unique returns a copy in a fixed order. Of those that compare as equal, one.
func unique[T any](list []T, compare func(a, b T) int) []T {
	list = slices.SortedFunc(slices.Values(list), compare)
	return slices.CompactFunc(list, func(a, b T) bool { return compare(a, b) == 0 })
}

func filter(nodes []Node, wanted func(Node) bool) (out []Node) {
	for _, n := range nodes {
		if wanted(n) {
			out = append(out, n)
		}
	}
	return out
}
