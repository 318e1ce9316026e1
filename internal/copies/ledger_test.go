package copies

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
)

const pieceLength = 128 << 10

// world is what the peers of a test claim, and what they do when asked.
type world struct {
	t       *testing.T
	ledger  *Ledger
	now     time.Duration
	pieces  int
	held    func(i int) bool // by the node that asks
	claims  map[identity.ID]func(i int) bool
	answers map[identity.ID]func(i int) reply
	asked   map[identity.ID]int
}

type reply int

const (
	rightly reply = iota
	wrongly
	never
	dropped // it says that it no longer has it
)

func newWorld(t *testing.T, pieces int) *world {
	return &world{t: t, ledger: NewLedger(pieceLength, [32]byte{1}), pieces: pieces, held: func(int) bool { return true },
		claims: make(map[identity.ID]func(int) bool), answers: make(map[identity.ID]func(int) reply), asked: make(map[identity.ID]int)}
}

func id(name ...any) identity.ID { return identitytest.Named(fmt.Sprint(name...)) }

func everything(int) bool { return true }
func nothing(int) bool    { return false }
func always(r reply) func(int) reply {
	return func(int) reply { return r }
}

func (w *world) add(id identity.ID, machine string, claims func(int) bool, answers func(int) reply) {
	w.claims[id], w.answers[id] = claims, answers
	w.ledger.Connected(id, machine, w.now)
}

// Common implements Pieces.
func (w *world) Common(id identity.ID, draw func(n int) int) (int, bool) {
	var common []int
	for i := range w.pieces {
		if w.Both(id, i) {
			common = append(common, i)
		}
	}
	if len(common) == 0 {
		return 0, false
	}
	return common[draw(len(common))], true
}

// Both implements Pieces.
func (w *world) Both(id identity.ID, i int) bool { return w.held(i) && w.claims[id](i) }

// run lets so much time pass, in the steps of a node; answers take no time.
func (w *world) run(d time.Duration) { w.stride(d, 100*time.Millisecond) }

func (w *world) stride(d, step time.Duration) {
	for end := w.now + d; w.now < end; w.now += step {
		for _, q := range w.ledger.Next(w.now, w) {
			w.asked[q.ID]++
			switch a := w.answers[q.ID](q.Piece); a {
			case never:
			case dropped:
				w.ledger.Dropped(q.ID, q.Piece, w.now)
			default:
				if got, ok := w.ledger.Answered(q.ID, q.Piece); !ok || got != q {
					w.t.Fatalf("no such question: %v, %v", q, got)
				}
				w.ledger.Checked(q, a == rightly, w.now)
			}
		}
	}
}

func (w *world) want(id identity.ID, standing Standing, counts, place bool) {
	w.t.Helper()
	s, c, p := w.ledger.Standing(id), w.ledger.Counts(id), w.ledger.Place(id)
	if s != standing || c != counts || p != place {
		w.t.Errorf("%s after %v: %v, counts %v, has a place %v; want %v, %v, %v", id, w.now, s, c, p, standing, counts, place)
	}
}

func TestStanding(t *testing.T) {
	half := func(i int) reply { return reply(i % 2) }
	for name, c := range map[string]struct {
		claims   func(int) bool
		answers  func(int) reply
		after    time.Duration
		standing Standing
		place    bool
	}{
		"honest":                  {everything, always(rightly), 2 * time.Second, Proved, true},
		"empty":                   {nothing, always(never), time.Minute, Unproved, true},
		"claims, not yet asked":   {everything, always(never), 0, Unproved, false},
		"silent":                  {everything, always(never), AnswerWithin + time.Second, Failed, false},
		"silent, a little before": {everything, always(never), AnswerWithin - time.Second, Unproved, false},
		"wrong":                   {everything, always(wrongly), time.Second, Failed, false},
		"wrong half of the time":  {everything, half, 10 * time.Minute, Failed, false},
		"evasive":                 {everything, always(dropped), time.Second, Failed, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 200)
			w.add(id("x"), "m", c.claims, c.answers)
			w.run(c.after)
			w.want(id("x"), c.standing, c.standing == Proved, c.place)
			failed := w.ledger.Failures()
			if (len(failed) == 1) != (c.standing == Failed) || len(failed) == 1 && (failed[0].ID != id("x") || failed[0].Reason == "") {
				t.Errorf("failures: %+v", failed)
			}
		})
	}
}

// Standing that is lost comes back by proofs, later each time.
func TestStandingComesBack(t *testing.T) {
	w := newWorld(t, 200)
	answer := rightly
	w.add(id("x"), "m", everything, func(int) reply { return answer })
	w.run(time.Second)
	w.want(id("x"), Proved, true, true)
	answer = wrongly
	w.run(2 * again)
	w.want(id("x"), Failed, false, false)
	answer = rightly
	w.run(retryLimit + time.Second)
	w.want(id("x"), Proved, true, true)
	if f := w.ledger.Failures(); len(f) != 0 {
		t.Errorf("still listed: %+v", f)
	}
	// A machine that was switched off has to prove again what it claims.
	w.ledger.Gone(id("x"), w.now)
	w.want(id("x"), Unproved, false, false)
	w.claims[id("x")] = nothing
	w.ledger.Connected(id("x"), "m", w.now)
	w.run(time.Second)
	w.want(id("x"), Unproved, false, true)
}

// A failure is not undone by a new connection.
func TestFailureStays(t *testing.T) {
	w := newWorld(t, 200)
	w.add(id("x"), "m", everything, always(wrongly))
	w.run(time.Second)
	w.ledger.Gone(id("x"), w.now)
	w.ledger.Connected(id("x"), "m", w.now)
	w.want(id("x"), Failed, false, false)
}

func TestOneMachineIsOneCopy(t *testing.T) {
	w := newWorld(t, 200)
	for n := range 5 {
		w.add(id("x", n), "m", everything, always(rightly))
	}
	w.add(id("own"), "", everything, always(rightly))
	w.add(id("liar"), "k", everything, always(wrongly))
	w.add(id("y"), "k", everything, always(rightly))
	w.run(5 * time.Second)
	count := func() (counts, places int) {
		for id := range w.claims {
			if w.ledger.Counts(id) {
				counts++
			}
			if w.ledger.Place(id) {
				places++
			}
		}
		return counts, places
	}
	if counts, places := count(); counts != 2 || places != 2 {
		t.Errorf("%d copies and %d places on two other machines", counts, places)
	}
	w.want(id("x0"), Proved, true, true)
	w.want(id("y"), Proved, true, true)
	w.want(id("own"), Proved, false, false)
	w.ledger.Gone(id("x0"), w.now)
	w.want(id("x1"), Proved, true, true) // another one speaks for the machine
	if counts, _ := count(); counts != 2 {
		t.Errorf("%d copies", counts)
	}
}

// What hangs on a claim is asked for first, a piece at a time, and a proof of one
// piece is none of another.
func TestDoubts(t *testing.T) {
	w := newWorld(t, 200)
	silent := false
	w.add(id("x"), "m", func(i int) bool { return i != 9 }, func(i int) reply {
		if silent {
			return never
		}
		return rightly
	})
	w.run(time.Second)
	if w.ledger.Proves(id("x"), 7, w.now) && w.ledger.Proves(id("x"), 6, w.now) {
		t.Fatal("the drawn pieces were not meant to be those; take another seed")
	}
	w.ledger.Doubt([]Doubt{{id("x"), 7}, {id("x"), 9}, {id("nobody"), 7}})
	w.run(time.Second)
	if !w.ledger.Proves(id("x"), 7, w.now) || w.ledger.Proves(id("x"), 9, w.now) || w.ledger.Proves(id("nobody"), 7, w.now) {
		t.Error("not exactly piece 7 is proved")
	}
	w.ledger.Dropped(id("x"), 7, w.now)
	if w.ledger.Proves(id("x"), 7, w.now) {
		t.Error("x dropped it")
	}
	w.run(time.Second)
	if !w.ledger.Proves(id("x"), 7, w.now) {
		t.Error("it was not asked again")
	}
	w.ledger.Doubt(nil)
	w.now += Holds
	if w.ledger.Proves(id("x"), 7, w.now) {
		t.Error("a proof holds for ever")
	}
	silent = true
	w.ledger.Doubt([]Doubt{{id("x"), 8}})
	w.run(AnswerWithin + time.Second)
	w.want(id("x"), Failed, false, false)
}

// Who is asked for a piece that this node sends to somebody meanwhile proves
// nothing by its answer.
func TestRelayedFromHere(t *testing.T) {
	w := newWorld(t, 200)
	w.add(id("x"), "m", everything, func(i int) reply {
		w.ledger.Sent(i)
		return rightly
	})
	w.run(time.Minute)
	w.want(id("x"), Unproved, false, false)
	w.answers[id("x")] = always(rightly)
	w.run(5 * time.Second)
	w.want(id("x"), Proved, true, true)
}

// The standing of who asks for a piece that it claims goes.
func TestContradiction(t *testing.T) {
	w := newWorld(t, 200)
	w.add(id("x"), "m", everything, always(rightly))
	w.run(time.Second)
	w.ledger.Contradicted(id("x"), 3, w.now)
	w.want(id("x"), Unproved, false, true)
	w.run(time.Second)
	w.want(id("x"), Proved, true, true)
	for range evasions {
		w.ledger.Contradicted(id("x"), 3, w.now)
	}
	w.want(id("x"), Failed, false, false)
}

// However many peers there are, and whatever hangs on them, the cost stays within
// its bounds, and in a quiet network it is small.
func TestCost(t *testing.T) {
	w := newWorld(t, 500)
	for n := range 100 {
		w.add(id(fmt.Sprintf("x%03d", n)), fmt.Sprint("m", n), everything, always(rightly))
	}
	total := func() (sum int64) {
		for _, n := range w.asked {
			sum += int64(n) * pieceLength
		}
		return sum
	}
	w.stride(2*time.Minute, time.Second)
	for id := range w.claims {
		w.want(id, Proved, true, true)
	}
	before := total()
	const quiet = 30 * time.Minute
	w.stride(quiet, time.Second)
	if rate := float64(total()-before) / quiet.Seconds(); rate > 1.3*repeatRate || rate < 0.5*repeatRate {
		t.Errorf("%.0f bytes a second are hashed at rest", rate)
	}
	var doubts []Doubt
	for id := range w.claims {
		for p := range 500 {
			doubts = append(doubts, Doubt{id, p})
		}
	}
	slices.SortFunc(doubts, func(a, b Doubt) int { return a.Piece - b.Piece })
	w.ledger.Doubt(doubts)
	before = total()
	w.stride(time.Minute, time.Second)
	if sum := total() - before; sum > askBurst+60*askRate+pieceLength {
		t.Errorf("%d bytes were hashed in a minute", sum)
	}
	proofs := 0
	for _, r := range w.ledger.records {
		proofs += len(r.proved)
	}
	if limit := int(Holds.Seconds()) * askRate / pieceLength; proofs > 2*limit {
		t.Errorf("%d proofs are remembered", proofs)
	}
}

// Identities that come and go do not fill the memory, and push out nobody who is
// here.
func TestIdentitiesAreBounded(t *testing.T) {
	w := newWorld(t, 10)
	w.add(id("here"), "m", everything, always(rightly))
	for n := range 5000 {
		x := id("x", n)
		w.ledger.Connected(x, x.String(), w.now)
		w.ledger.Gone(x, w.now)
	}
	w.run(time.Second)
	w.want(id("here"), Proved, true, true)
	if n := len(w.ledger.records); n > maxRecords {
		t.Errorf("%d records", n)
	}
}

// Liars with keys claim everything beside honest nodes that hold half of it: no
// lie ever counts for longer than its owner is lucky, honest nodes always count.
func TestLiarsAmongHonestNodes(t *testing.T) {
	play := func() string {
		w := newWorld(t, 400)
		rng := rand.New(rand.NewPCG(3, 3))
		for n := range 8 {
			has := make([]bool, w.pieces)
			for i := range has {
				has[i] = rng.IntN(2) == 0
			}
			w.add(id("honest", n), fmt.Sprint("h", n), func(i int) bool { return has[i] }, always(rightly))
			// This one stores a half, and claims it all.
			w.add(id("half", n), fmt.Sprint("l", n), everything, func(i int) reply {
				if has[i] {
					return rightly
				}
				return []reply{wrongly, never, dropped}[n%3]
			})
			w.add(id("liar", n), fmt.Sprint("k", n), everything, always([]reply{wrongly, never, dropped}[n%3]))
		}
		w.run(20 * time.Second)
		lucky := 0
		for range 60 {
			w.run(10 * time.Second)
			for n := range 8 {
				w.want(id("honest", n), Proved, true, true)
				if id := id("liar", n); w.ledger.Counts(id) {
					t.Errorf("%s counts after %v", id, w.now)
				}
				if w.ledger.Counts(id("half", n)) {
					lucky++
				}
			}
		}
		if lucky > 8*60/5 {
			t.Errorf("who holds a half and claims it all counted in %d of %d looks", lucky, 8*60)
		}
		return fmt.Sprint(lucky, w.asked)
	}
	if a, b := play(), play(); a != b {
		t.Errorf("the same seed gave %s and %s", a, b)
	}
}

func TestTurns(t *testing.T) {
	var queue FairQueue[string]
	for n := range 100 {
		if ok := queue.Add("flood", fmt.Sprint("f", n)); ok != (n < maxQueued) {
			t.Fatalf("question %d of one machine is taken: %v", n, ok)
		}
	}
	queue.Add("honest", "h")
	var got []string
	now := time.Duration(0)
	for len(got) < maxQueued+1 {
		q, wait, ok := queue.Next(now, pieceLength)
		switch {
		case ok:
			got = append(got, q)
		case wait <= 0:
			t.Fatalf("nothing to do after %v", got)
		default:
			now += wait
		}
	}
	if got[0] != "f0" || got[1] != "h" {
		t.Errorf("the order is %v", got)
	}
	if least := time.Duration(maxQueued-1) * time.Second * pieceLength / machineRate; now < least {
		t.Errorf("one machine's questions cost %v of work within %v", maxQueued, now)
	}
	if _, wait, ok := queue.Next(now+time.Minute, pieceLength); ok || wait != 0 || len(queue.machines) != 0 {
		t.Errorf("more to do: wait %v, %d machines", wait, len(queue.machines))
	}
}

func TestDigest(t *testing.T) {
	sum := func(nonce Nonce, holder, piece string) string {
		h := NewDigest(nonce, id(holder))
		h.Write([]byte(piece))
		return string(h.Sum(nil))
	}
	all := []string{
		sum(Nonce{}, "x", "abc"), sum(Nonce{1}, "x", "abc"), sum(Nonce{}, "y", "abc"), sum(Nonce{}, "x", "abd"), sum(Nonce{}, "xa", "bc"),
	}
	for i, a := range all {
		if len(a) != DigestSize || slices.Contains(all[:i], a) {
			t.Errorf("digest %d: %x", i, a)
		}
	}
}
