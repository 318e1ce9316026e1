package roles

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/ether"
	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
)

func name(t testing.TB, s string) Name {
	t.Helper()
	n, err := ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// offer makes one of "RUNE/ROLE WANTS" and needs.
func offer(t testing.TB, s string, needs ...string) Offer {
	t.Helper()
	words := strings.Fields(s)
	o := Offer{Name: name(t, words[0])}
	var err error
	if o.Count, err = ParseCount(words[1]); err != nil {
		t.Fatal(err)
	}
	for _, need := range needs {
		n, err := ParseNeed(need)
		if err != nil {
			t.Fatal(err)
		}
		o.Needs = append(o.Needs, n)
	}
	return o
}

func bound(o Offer, to string) Offer {
	o.Bound = to
	return o
}

func mac(i int) ether.MAC { return ether.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)} }

func testNode(i int) Node {
	return Node{
		ID: identitytest.Named(fmt.Sprintf("node%04d", i)), MAC: mac(i), Hostname: fmt.Sprint("lab-", i), First: i == 0,
		Memory: uint64(i%4+1) << 32, CPUs: i%8 + 1,
	}
}

func testNodes(n int) (nodes []Node) {
	for i := range n {
		nodes = append(nodes, testNode(i))
	}
	return nodes
}

// claimed returns the nodes as they are when they have taken what they were assigned.
func claimed(nodes []Node, a Assignment) []Node {
	nodes = slices.Clone(nodes)
	for i := range nodes {
		nodes[i].Claims = a.Of(nodes[i].ID)
	}
	return nodes
}

func holders(a Assignment, nodes []Node, role Name) (hosts []string) {
	for _, n := range nodes {
		if slices.Contains(a[role], n.ID) {
			hosts = append(hosts, n.Hostname)
		}
	}
	return hosts
}

// someOffers are of each kind.
func someOffers(t testing.TB) []Offer {
	return []Offer{
		offer(t, "compile/scheduler one", "memory >= 8G"), offer(t, "compile/worker others"), offer(t, "time/server first"),
		offer(t, "web/page 3", "cpus >= 2"), offer(t, "web/balancer one"), offer(t, "store/keeper most"), offer(t, "store/copy 30%", "label big"),
		offer(t, "names/all all"), bound(offer(t, "nfs/server one"), SavedData), bound(offer(t, "gpu/render all"), GPU),
	}
}

// randomNodes have random features, labels and claims.
func randomNodes(rnd *rand.Rand, offers []Offer, count int) []Node {
	nodes := testNodes(count)
	for i := range nodes {
		n := &nodes[i]
		n.First = rnd.IntN(10) == 0
		for _, f := range Features() {
			if rnd.IntN(3) == 0 {
				n.Features = append(n.Features, f)
			}
		}
		if rnd.IntN(2) == 0 {
			n.Labels = []string{"big"}
		}
		for _, o := range offers {
			if rnd.IntN(4) == 0 {
				n.Claims = append(n.Claims, o.Name)
			}
		}
	}
	return nodes
}

func equal(a, b Assignment) bool {
	return maps.EqualFunc(a, b, func(a, b []identity.ID) bool { return slices.Equal(a, b) })
}

func shuffled[T any](rnd *rand.Rand, list []T) []T {
	list = slices.Clone(list)
	rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// TestAssignKeepsItsRules holds each rule against random networks.
func TestAssignKeepsItsRules(t *testing.T) {
	offers := someOffers(t)
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		nodes := randomNodes(rnd, offers, rnd.IntN(20))
		a := Assign(offers, nodes, nil)
		if len(a) != len(offers) {
			t.Fatalf("seed %d: %d roles of %d", seed, len(a), len(offers))
		}
		if b := Assign(shuffled(rnd, append(offers, offers...)), shuffled(rnd, nodes), nil); !equal(a, b) {
			t.Fatalf("seed %d: in another order %v, not %v", seed, b, a)
		}
		if b := Assign(offers, claimed(nodes, a), nil); !equal(a, b) {
			t.Fatalf("seed %d: once claimed %v, not %v", seed, b, a)
		}
		for _, o := range offers {
			checkHolders(t, o, nodes, a)
		}
	}
}

// holdsAnother reports whether a node holds another role of the same rune.
func holdsAnother(a Assignment, id identity.ID, role Name) bool {
	return slices.ContainsFunc(a.Of(id), func(r Name) bool { return r.Rune == role.Rune && r != role })
}

// checkHolders holds one role's holders against what its offer says.
func checkHolders(t *testing.T, o Offer, nodes []Node, a Assignment) {
	t.Helper()
	can := func(n Node) bool { return o.MetBy(n) && (o.Bound == "" || slices.Contains(n.Features, o.Bound)) }
	candidates, claimants := 0, 0
	for _, n := range nodes {
		holds := slices.Contains(a[o.Name], n.ID)
		if holds && !can(n) {
			t.Errorf("%s is held by %+v", o.Name, n)
		}
		busy := holdsAnother(a, n.ID, o.Name)
		if o.Count.kind == others && can(n) && holds == busy {
			t.Errorf("%s is held: %t, by a node with the roles %v", o.Name, holds, a.Of(n.ID))
		}
		if can(n) {
			candidates++
			if slices.Contains(n.Claims, o.Name) {
				claimants++
			}
		}
	}
	want := o.Count.of(candidates)
	if o.Count.kind == others {
		return
	}
	if len(a[o.Name]) != want {
		t.Errorf("%s is held by %d of %d nodes, want %d", o.Name, len(a[o.Name]), candidates, want)
	}
	if o.Count.kind == first {
		return // whether it is claimed counts for less than the medium
	}
	kept := 0
	for _, n := range nodes {
		if slices.Contains(n.Claims, o.Name) && slices.Contains(a[o.Name], n.ID) {
			kept++
		}
	}
	if kept != min(claimants, want) {
		t.Errorf("%s: %d of %d claimants keep it, wanted are %d", o.Name, kept, claimants, want)
	}
}

// TestAJoiningNodeMovesNothing also where it could rank first.
func TestAJoiningNodeMovesNothing(t *testing.T) {
	offers := someOffers(t)
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		nodes := randomNodes(rnd, nil, 1+rnd.IntN(20))
		before := Assign(offers, nodes, nil)
		joining := randomNodes(rnd, nil, len(nodes)+1)[len(nodes)]
		joining.First = false // what is first's goes back to it, see TestFirst
		after := Assign(offers, append(claimed(nodes, before), joining), nil)
		for name, ids := range before {
			for _, id := range ids {
				// One that gains a role because there are more places now is none of the
				// rune's others any more.
				if !slices.Contains(after[name], id) && !(name.Role == "worker" && holdsAnother(after, id, name)) {
					t.Fatalf("seed %d: %s has lost %s because %s joins", seed, id, name, joining.ID)
				}
			}
		}
	}
}

// TestADeathMovesOnlyWhatItHeld: others keep theirs, except that a share of fewer
// nodes may be fewer.
func TestADeathMovesOnlyWhatItHeld(t *testing.T) {
	offers := someOffers(t)
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		nodes := randomNodes(rnd, nil, 2+rnd.IntN(20))
		before := Assign(offers, nodes, nil)
		dead := rnd.IntN(len(nodes))
		after := Assign(offers, slices.Delete(claimed(nodes, before), dead, dead+1), nil)
		for _, o := range offers {
			old := slices.DeleteFunc(slices.Clone(before[o.Name]), func(id identity.ID) bool { return id == nodes[dead].ID })
			lost := slices.DeleteFunc(slices.Clone(old), func(id identity.ID) bool { return slices.Contains(after[o.Name], id) })
			switch {
			case o.Count.kind == others: // one of them may replace the dead one
				lost = slices.DeleteFunc(lost, func(id identity.ID) bool { return holdsAnother(after, id, o.Name) })
			case o.Count.kind == share || o.Count.kind == most:
				lost = lost[min(len(lost), max(0, len(old)-len(after[o.Name]))):]
			}
			if len(lost) > 0 {
				t.Fatalf("seed %d: %v lose %s because %s died", seed, lost, o.Name, nodes[dead].ID)
			}
		}
	}
}

func TestPins(t *testing.T) {
	offers := []Offer{offer(t, "a/one one", "memory >= 1T"), offer(t, "a/rest others"), bound(offer(t, "a/disk one"), SavedData)}
	nodes := testNodes(6)
	nodes[2].Features, nodes[4].Features = []string{SavedData}, []string{SavedData}
	one, rest, disk := offers[0].Name, offers[1].Name, offers[2].Name
	for _, test := range []struct {
		what            string
		pins            Pins
		one, rest, disk string
	}{
		{"no machine has a terabyte", nil, "", "lab-0 lab-1 lab-2 lab-3 lab-5", "lab-4"},
		{"a pin overrules needs and count", Pins{one: {On: []ether.MAC{mac(1), mac(5)}}}, "lab-1 lab-5", "lab-0 lab-2 lab-3", "lab-4"},
		{"not all are alive", Pins{one: {On: []ether.MAC{mac(1), mac(77)}}}, "lab-1", "lab-0 lab-2 lab-3 lab-5", "lab-4"},
		{"none is alive", Pins{disk: {On: []ether.MAC{mac(77)}}}, "", "lab-0 lab-1 lab-2 lab-3 lab-4 lab-5", ""},
		{"a pin chooses among those with the disk", Pins{disk: {On: []ether.MAC{mac(1), mac(2)}}}, "", "lab-0 lab-1 lab-3 lab-4 lab-5", "lab-2"},
		{"one of the others that holds another role", Pins{rest: {On: []ether.MAC{mac(4)}}}, "", "lab-4", "lab-4"},
	} {
		// Who holds a role already has no right to it against a pin.
		busy := claimed(nodes, Assign(offers, nodes, nil))
		a := Assign(offers, busy, test.pins)
		for role, want := range map[Name]string{one: test.one, rest: test.rest, disk: test.disk} {
			if got := strings.Join(holders(a, nodes, role), " "); got != want {
				t.Errorf("%s: %s is held by %q, want %q", test.what, role, got, want)
			}
		}
	}
}

func TestFirst(t *testing.T) {
	offers, nodes := []Offer{offer(t, "a/b first")}, testNodes(5)
	held := func(nodes []Node) string {
		return strings.Join(holders(Assign(offers, nodes, nil), nodes, offers[0].Name), " ")
	}
	if got := held(nodes); got != "lab-0" {
		t.Errorf("%s holds it, want the one with the medium", got)
	}
	without := nodes[1:]
	substitute := held(without)
	without = claimed(without, Assign(offers, without, nil))
	if got := held(without); got != substitute || got == "" {
		t.Errorf("without the medium %q holds it, then %q", substitute, got)
	}
	if got := held(append(without, nodes[0])); got != "lab-0" {
		t.Errorf("%s holds it, and the medium is back", got)
	}
	nodes[1].First, nodes[1].Claims = true, []Name{offers[0].Name}
	if got := held(nodes); got != "lab-1" {
		t.Errorf("of two media's nodes %s holds it, want the one that claims it", got)
	}
}

// TestHalvesOfANetwork: each half has a holder, and one of the two keeps the role
// when they meet.
func TestHalvesOfANetwork(t *testing.T) {
	offers, nodes := []Offer{offer(t, "a/b one")}, testNodes(8)
	role := offers[0].Name
	left, right := nodes[:4], nodes[4:]
	left, right = claimed(left, Assign(offers, left, nil)), claimed(right, Assign(offers, right, nil))
	a, b := holders(Assign(offers, left, nil), left, role), holders(Assign(offers, right, nil), right, role)
	all := slices.Concat(left, right)
	healed := holders(Assign(offers, all, nil), all, role)
	if len(a) != 1 || len(b) != 1 || len(healed) != 1 || healed[0] != a[0] && healed[0] != b[0] {
		t.Errorf("the halves have %v and %v, together %v", a, b, healed)
	}
}

// TestRolesAreSpread: many roles do not all go to one node.
func TestRolesAreSpread(t *testing.T) {
	var offers []Offer
	for i := range 100 {
		offers = append(offers, offer(t, fmt.Sprintf("a/r%d one", i)))
	}
	nodes := testNodes(10)
	a := Assign(offers, nodes, nil)
	for _, n := range nodes {
		if c := len(a.Of(n.ID)); c > 30 {
			t.Errorf("%s has %d of %d roles", n.ID, c, len(offers))
		}
	}
}

// BenchmarkAssign is of a large network with many roles.
func BenchmarkAssign(b *testing.B) {
	offers, nodes := someOffers(b), testNodes(1000)
	for b.Loop() {
		Assign(offers, nodes, nil)
	}
}
