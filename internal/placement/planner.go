package placement

import (
	"slices"
	"time"

	"viver.lan/internal/identity"
)

// Timing of a Planner.
const (
	// Machines that boot together are added together.
	joinQuiet = time.Second
	joinLimit = 5 * time.Second
	// A machine that is gone may be back soon.
	lossQuiet = 30 * time.Second
	lossLimit = 2 * time.Minute
	// When a room is switched off, every machine that goes leaves pieces with few
	// copies: there is a new assignment in the pauses, not after each loss.
	crowdQuiet = 5 * time.Second
	crowdLimit = 15 * time.Second
	// endangered is the number of copies at which there is no more waiting.
	endangered = 2
)

// Planner turns the members of a network into an assignment of pieces: it decides
// when a change of the members leads to a new one. It is not safe for concurrent use.
// Times are durations since any fixed moment.
type Planner struct {
	// Copies of each piece, when set, instead of what Copies says.
	Copies int

	image   Image
	current *Assignment
	since   time.Duration // when current was made
	// missing are the members of current that are gone, since when.
	missing map[identity.ID]time.Duration
	losses  []time.Duration // of the last lossQuiet, acted on or not
	// joined are the members that are not in current yet.
	joined              []Node
	joinFirst, joinLast time.Duration
}

// NewPlanner returns the planner of a network with no member yet.
func NewPlanner(im Image) *Planner {
	return &Planner{image: im, current: Assign(im, nil, 0), missing: make(map[identity.ID]time.Duration)}
}

// Update takes the members that are alive now and returns the assignment to use,
// a new one if it is time for that. Call it about every second. The first members count after five seconds, a new one or a changed
// budget after a second or so. A
// lost member counts until no other was lost for 30 s, or two minutes have passed. If
// a piece is down to two copies, the loss counts at once, unless more than a quarter of
// the members went within 30 s: then after 5 s without another loss, or after 15 s.
func (k *Planner) Update(now time.Duration, alive []Node) *Assignment {
	byID := make(map[identity.ID]Node, len(alive))
	for _, n := range alive {
		byID[n.ID] = n
	}
	k.noteLosses(now, byID)
	k.noteJoins(now, byID)
	switch {
	case k.lossesDue(now, byID):
		clear(k.missing)
		k.assign(now, alive)
	case k.joinsDue(now):
		// The missing keep their places.
		for _, n := range k.current.nodes {
			if _, gone := k.missing[n.ID]; gone {
				alive = append(slices.Clip(alive), n)
			}
		}
		k.assign(now, alive)
	}
	return k.current
}

func (k *Planner) copies(nodes int) int {
	if k.Copies > 0 {
		return k.Copies
	}
	return Copies(nodes)
}

// Since returns when the assignment was made.
func (k *Planner) Since() time.Duration { return k.since }

func (k *Planner) assign(now time.Duration, members []Node) {
	k.current = Assign(k.image, members, k.copies(len(members)))
	k.since = now
	k.joined = nil
}

func (k *Planner) noteLosses(now time.Duration, alive map[identity.ID]Node) {
	for _, n := range k.current.nodes {
		_, here := alive[n.ID]
		_, known := k.missing[n.ID]
		switch {
		case here:
			delete(k.missing, n.ID)
		case !known:
			k.missing[n.ID] = now
			k.losses = append(k.losses, now)
		}
	}
	k.losses = slices.DeleteFunc(k.losses, func(at time.Duration) bool { return now-at > lossQuiet })
}

func (k *Planner) noteJoins(now time.Duration, alive map[identity.ID]Node) {
	var joined []Node
	for id, n := range alive {
		if i := k.current.Index(id); i < 0 || k.current.nodes[i].Weight != n.Weight {
			joined = append(joined, n)
		}
	}
	slices.SortFunc(joined, byName)
	if slices.Equal(joined, k.joined) {
		return
	}
	if len(k.joined) == 0 {
		k.joinFirst = now
	}
	k.joined, k.joinLast = joined, now
}

// joinsDue gives a node that has just started the whole limit to find others.
func (k *Planner) joinsDue(now time.Duration) bool {
	if len(k.joined) == 0 {
		return false
	}
	return now-k.joinFirst >= joinLimit || len(k.current.nodes) > 0 && now-k.joinLast >= joinQuiet
}

func (k *Planner) lossesDue(now time.Duration, alive map[identity.ID]Node) bool {
	if len(k.missing) == 0 {
		return false
	}
	first, last := now, time.Duration(0)
	for _, at := range k.missing {
		first, last = min(first, at), max(last, at)
	}
	quiet, limit := lossQuiet, lossLimit
	if k.anyEndangered() {
		quiet, limit = 0, 0
		if len(k.losses) > max(k.copies(len(alive))-1, (len(alive)+len(k.losses))/4) {
			quiet, limit = crowdQuiet, crowdLimit
		}
	}
	return now-last >= quiet || now-first >= limit
}

// anyEndangered reports whether the missing leave a piece that they held with
// few copies.
func (k *Planner) anyEndangered() bool {
	gone := make([]bool, len(k.current.nodes))
	for id := range k.missing {
		gone[k.current.Index(id)] = true
	}
	count := func(n int, lost, left *int) {
		if gone[n] {
			*lost++
		} else {
			*left++
		}
	}
	wholeLost, wholeLeft := 0, 0
	for _, n := range k.current.whole {
		count(n, &wholeLost, &wholeLeft)
	}
	for _, holders := range k.current.holders {
		lost, left := wholeLost, wholeLeft
		for _, n := range holders {
			count(int(n), &lost, &left)
		}
		if lost > 0 && left <= endangered {
			return true
		}
	}
	return false
}
