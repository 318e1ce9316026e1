package exchange

import (
	"crypto/sha1"
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/placement"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

const testPiece = 64 << 10

func newExchange(t testing.TB) *Exchange {
	t.Helper()
	return New(Config{
		Image: placement.Image{Pieces: 4, PieceLength: testPiece, Size: 4*testPiece - 1000}, Key: identitytest.Key(t, "n").Public(),
		Listen: netip.MustParseAddrPort("10.9.9.9:6881"), Budget: 4 * testPiece,
	})
}

func every(int) bool { return true }

func newKey(x *Exchange) (k schedule.Key) {
	for k = 1; x.byKey[k] != nil; k++ {
	}
	return k
}

// join makes a peer that is ready, has everything and answers requests; a node when
// it has a name.
func join(t testing.TB, x *Exchange, addr, name string) schedule.Key {
	t.Helper()
	e := Endpoint{Addr: netip.MustParseAddrPort(addr), Machine: addr, Fast: true, Extended: name != ""}
	copy(e.ID[:], addr)
	key := identitytest.Key(t, name).Public()
	if name != "" {
		e.ID = wire.PeerIDOf(key)
	}
	k := newKey(x)
	if err := x.Connected(k, e); err != nil {
		t.Log(err)
		return 0
	}
	if name != "" {
		h := wire.Hello{Block: testPiece, Budget: 4 * testPiece, Key: key[:], Nonce: make([]byte, wire.NonceSize)}
		h.M.Proof, h.M.DontHave = wire.IDProof, wire.IDDontHave
		x.Hello(k, h)
		x.Proved(k, key, true)
	}
	x.Messages(k, []wire.Message{{Type: wire.HaveAll}, {Type: wire.Unchoke}})
	return k
}

// sent returns the messages of a type that the commands send to peer k.
func sent(commands []Command, k schedule.Key, what wire.Type) (all []wire.Message) {
	for _, c := range commands {
		if s, ok := c.(Send); ok && s.To == k && s.Message.Type == what {
			all = append(all, s.Message)
		}
	}
	return all
}

// request has peer k ask for piece i, and returns what is done about it.
func request(x *Exchange, k schedule.Key, i int) []Command {
	x.Messages(k, []wire.Message{{Type: wire.Request, Block: wire.Block{Piece: i, Length: wire.BlockSize}}})
	return x.Commands()
}

// find returns the first command of a type.
func find[C Command](commands []Command) (found C, ok bool) {
	for _, c := range commands {
		if found, ok = c.(C); ok {
			return found, true
		}
	}
	return found, false
}

// owes returns the blocks that a peer was asked for and owes yet.
func owes(x *Exchange, k schedule.Key) (all []wire.Block) {
	for _, o := range x.byKey[k].asked {
		all = append(all, o.blocks...)
	}
	return all
}

// arrive brings all blocks of a piece from k and returns what is to be verified.
func arrive(t testing.TB, x *Exchange, k schedule.Key, piece int) (v *Verify) {
	t.Helper()
	for _, b := range owes(x, k) {
		if b.Piece == piece {
			_, v = x.BlockArrived(k, b, new([]byte), nil)
		}
	}
	if x.Commands(); v == nil || v.Piece != piece {
		t.Fatalf("piece %d is not to be verified", piece)
	}
	return v
}

// The same events at the same times give the same commands.
func TestSameEventsSameCommands(t *testing.T) {
	run := func() (all []Command) {
		x := newExchange(t)
		x.Want(0, 4, every)
		for n, addr := range []string{"10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1"} {
			x.SetTime(time.Duration(n) * time.Millisecond)
			join(t, x, addr, "")
		}
		x.Demand(2, true)
		for n := range 20 {
			x.SetTime(time.Second + time.Duration(n)*TickEvery)
			x.Tick()
			all = append(all, x.Commands()...)
		}
		return all
	}
	if a, b := run(), run(); !reflect.DeepEqual(a, b) || len(a) == 0 {
		t.Errorf("%d and %d commands", len(a), len(b))
	}
}

// A piece is held when it was verified, and not before; then others are told.
func TestPieceFromRequestToHave(t *testing.T) {
	x := newExchange(t)
	k := join(t, x, "10.0.0.1:1", "a")
	other := join(t, x, "10.0.0.2:1", "")
	x.Commands()
	x.Demand(1, true)
	requests := append(sent(x.out, k, wire.Request), sent(x.out, other, wire.Request)...)
	if len(requests) == 0 || requests[0].Block.Piece != 1 {
		t.Fatalf("asked for %v", requests)
	}
	from := k
	if len(x.byKey[k].asked) == 0 {
		from = other
	}
	v := arrive(t, x, from, 1)
	if x.Held().Has(1) || len(v.Parts) != testPiece/wire.BlockSize {
		t.Errorf("held before it is verified, or %d parts", len(v.Parts))
	}
	x.Verified(Verdict{Piece: 1, Right: true, Held: true})
	commands := x.Commands()
	if a, ok := find[Announce](commands); !ok || a.Piece != 1 || len(a.To) != 2 || !x.Held().Has(1) {
		t.Errorf("nobody is told: %v", commands)
	}
}

// What the store got without the swarm, and lost again, while the same piece from a
// peer is verified, is not asked for a second time: there would be nothing to ask.
func TestPieceThatComesAndGoesWhileItIsVerified(t *testing.T) {
	x := newExchange(t)
	k := join(t, x, "10.0.0.1:1", "")
	x.Want(1, 2, every)
	arrive(t, x, k, 1)
	x.SetHeld(1, true)
	x.SetHeld(1, false)
	x.Tick()
	if got := x.table.Asked(1); len(got) > 0 || len(owes(x, k)) > 0 {
		t.Errorf("asked of %v, blocks %v", got, owes(x, k))
	}
	x.Verified(Verdict{Piece: 1, Right: true})
	if len(owes(x, k)) != testPiece/wire.BlockSize {
		t.Errorf("not asked for again: %v", owes(x, k))
	}
}

// Bytes that nobody asked for are work, too: a message with one byte takes the
// owner's time as often as one with a whole block.
func TestUselessBlocksAreWork(t *testing.T) {
	x := newExchange(t)
	k := join(t, x, "10.0.0.1:1", "")
	for range 3 {
		if used, _ := x.BlockArrived(k, wire.Block{Piece: 1, Length: 1}, new([]byte), nil); used {
			t.Error("it is of use")
		}
	}
	if work, more := x.TakeWork(k), x.TakeWork(k); work != 3 || more != 0 {
		t.Errorf("three of them cost %d and %d", work, more)
	}
}

// A piece that the store does not take is left alone for a while, and nobody is
// blamed.
func TestPieceThatIsNotKept(t *testing.T) {
	x := newExchange(t)
	k := join(t, x, "10.0.0.1:1", "")
	x.Want(0, 1, every)
	arrive(t, x, k, 0)
	x.Verified(Verdict{Piece: 0, Err: errors.New("full")})
	if got := sent(x.Commands(), k, wire.Request); len(got) > 0 || len(x.tasks) > 0 || x.Held().Has(0) || len(x.blame.strikes) > 0 {
		t.Errorf("asked again for %v, strikes %v", got, x.blame.strikes)
	}
	x.SetTime(31 * time.Second)
	x.Tick()
	if len(sent(x.Commands(), k, wire.Request)) == 0 {
		t.Error("it is never tried again")
	}
}

// Who alone sent a piece that is wrong twice is refused; whoever sent parts that
// are wrong is, once the right ones are known.
func TestBlame(t *testing.T) {
	x := newExchange(t)
	x.Want(0, 1, every)
	k := join(t, x, "10.0.0.1:1", "")
	parts := testPiece / wire.BlockSize
	arrive(t, x, k, 0)
	wrong := make([][sha1.Size]byte, parts)
	x.Verified(Verdict{Piece: 0, Digests: wrong})
	if _, closed := find[Close](x.Commands()); closed {
		t.Fatal("refused for the first wrong piece")
	}
	x.SetTime(time.Second)
	x.Tick() // suspects are asked again after a while
	if v := arrive(t, x, k, 0); !v.Digests {
		t.Error("the parts are not compared")
	}
	right := make([][sha1.Size]byte, parts)
	right[2] = [sha1.Size]byte{1}
	x.Verified(Verdict{Piece: 0, Right: true, Held: true, Digests: right})
	if c, closed := find[Close](x.Commands()); !closed || c.To != k {
		t.Error("who sent a wrong part is not refused")
	}
	x.Disconnected(k, nil, true)
	if k = join(t, x, "10.0.0.1:1", ""); !x.byKey[k].closing {
		t.Error("it is let in again at once")
	}
}

// Somebody who calls from the first node's address and proves nothing is not worth
// what that node is.
func TestWorthOfTheFirstNode(t *testing.T) {
	x := newExchange(t)
	first := netip.MustParseAddrPort("10.0.0.1:6881")
	caller := x.byKey[join(t, x, "10.0.0.1:2", "a")]
	x.Hello(caller.key, wire.Hello{Port: 6881})
	caller.proved = false
	x.AddPeer(first, true)
	if x.rank(caller) == schedule.Origin {
		t.Error("it is taken for the first node")
	}
	if d, ok := find[Dial](x.Commands()); !ok || d.To != first {
		t.Fatalf("the first node is not dialled: %v", d)
	}
	k := newKey(x)
	if err := x.Connected(k, Endpoint{Addr: first, Dialled: first}); err != nil {
		t.Fatal(err)
	}
	if x.worthOf(caller) == origin || x.worthOf(x.byKey[k]) != origin {
		t.Errorf("worth %d and %d", x.worthOf(caller), x.worthOf(x.byKey[k]))
	}
}

// What a hello says of the first node is a hint, and none where the node was told
// which that is.
func TestWhoIsTheFirstNode(t *testing.T) {
	for _, told := range []bool{false, true} {
		x := newExchange(t)
		if told {
			x.AddPeer(netip.MustParseAddrPort("10.0.0.9:6881"), true)
		}
		p := x.byKey[join(t, x, "10.0.0.1:1", "a")]
		p.hello.Origin = 1
		if got, want := x.rank(p), map[bool]schedule.Kind{false: schedule.Origin, true: schedule.Stranger}[told]; got != want {
			t.Errorf("told %v: %v", told, got)
		}
	}
}

// What is evicted is announced (BEP 54), and a request for it is refused.
func TestDontHave(t *testing.T) {
	x := newExchange(t)
	x.SetHeld(2, true)
	k := join(t, x, "10.0.0.1:1", "a")
	x.Commands()
	x.SetHeld(2, false)
	if told := sent(x.Commands(), k, wire.Extended); len(told) != 1 || !reflect.DeepEqual(told[0], wire.Extension(wire.IDDontHave, wire.PieceHint(2))) {
		t.Errorf("told %v", told)
	}
	if len(sent(request(x, k, 2), k, wire.Reject)) != 1 {
		t.Error("the request is not refused")
	}
}

// What was evicted since it was asked about is not read from a slow medium to check
// the answer: something else is asked.
func TestAnswerAboutAnEvictedPiece(t *testing.T) {
	x := newExchange(t)
	for i := range 4 {
		x.SetHeld(i, true)
	}
	k := join(t, x, "10.0.0.1:1", "a")
	x.byKey[k].hello.M.Challenge = wire.IDChallenge
	for _, handy := range []bool{false, true} {
		x.cfg.Handy = nil
		x.SetTime(x.now + proveEvery)
		x.Commands()
		x.prove()
		questions := sent(x.Commands(), k, wire.Extended)
		if len(questions) != 1 {
			t.Fatalf("%d questions", len(questions))
		}
		q, err := wire.ParseChallenge(questions[0].Payload, 4)
		if err != nil {
			t.Fatal(err)
		}
		x.cfg.Handy = func(int) bool { return handy }
		x.Messages(k, []wire.Message{wire.Extension(wire.IDAnswer, wire.Answer{Piece: q.Piece}.Payload())})
		if _, checked := find[Check](x.Commands()); checked != handy {
			t.Errorf("handy %v: checked %v", handy, checked)
		}
	}
}

// A stranger whose request was rejected is told with the next piece that it may
// ask.
func TestRejectedStrangerMayAskAgain(t *testing.T) {
	x := newExchange(t)
	k := join(t, x, "10.0.0.1:1", "")
	x.Commands()
	if len(sent(request(x, k, 2), k, wire.Reject)) != 1 {
		t.Error("the request is not rejected")
	}
	x.SetHeld(2, true)
	commands := x.Commands()
	if _, told := commands[0].(Announce); !told || len(sent(commands, k, wire.Unchoke)) != 1 {
		t.Errorf("the stranger is told %v", commands)
	}
}

// Membership may be wrong about a death: a connection that lives goes on.
func TestRemovedPeerThatLives(t *testing.T) {
	x := newExchange(t)
	at, k := netip.MustParseAddrPort("10.0.0.1:6881"), schedule.Key(1)
	x.AddPeer(at, false)
	if err := x.Connected(k, Endpoint{Addr: at, Dialled: at}); err != nil {
		t.Fatal(err)
	}
	if x.RemovePeer(at); x.byKey[k].closing || x.contacts.at[at] == nil {
		t.Error("the connection is closed, or its address forgotten")
	}
}

// An address that was named is dialled for ever, until it is believed gone.
func TestAddressThatDoesNotAnswer(t *testing.T) {
	x := newExchange(t)
	addr := netip.MustParseAddrPort("10.0.0.1:6881")
	x.AddPeer(addr, false)
	for n := range 2 * giveUp {
		x.SetTime(time.Duration(n+1) * time.Minute)
		x.DialEnded(addr, errors.New("refused"))
		x.Commands()
		x.SetTime(x.now + 20*time.Second)
		x.Tick()
		if _, dialled := find[Dial](x.Commands()); !dialled {
			t.Fatalf("given up after %d calls", n)
		}
	}
	x.RemovePeer(addr)
	x.DialEnded(addr, errors.New("refused"))
	if x.contacts.at[addr] != nil {
		t.Error("it is never forgotten")
	}
}

// Of two connections to a node the other end may close the one that was dialled
// before it has proved anything on it: the address is that of the other.
func TestContactOfASecondConnection(t *testing.T) {
	x := newExchange(t)
	at := netip.MustParseAddrPort("10.0.0.1:6881")
	x.AddPeer(at, false)
	caller := x.byKey[join(t, x, "10.0.0.1:2", "a")]
	caller.hello.Port = at.Port()
	k := newKey(x)
	if err := x.Connected(k, Endpoint{Addr: at, Dialled: at, Extended: true, ID: wire.PeerID{1}}); err != nil {
		t.Fatal(err)
	}
	x.Disconnected(k, nil, true)
	x.DialEnded(at, nil)
	x.SetTime(time.Minute)
	x.Commands()
	x.Tick()
	if _, dialled := find[Dial](x.Commands()); dialled || x.contacts.at[at].peer != caller {
		t.Error("the address is dialled again")
	}
}

// A peer that rejects a piece which has to come whole from one peer is not asked for
// it again at once. That its answers come late, when another was already asked for
// the piece instead, changes nothing.
func TestRejectedPieceMayWait(t *testing.T) {
	x := newExchange(t)
	x.blame.failed[1] = failure{} // as if it had come with wrong bytes
	k := join(t, x, "10.0.0.1:1", "")
	x.Demand(1, true)
	blocks := owes(x, k)
	x.Messages(k, []wire.Message{{Type: wire.Reject, Block: blocks[0]}})
	if again := owes(x, k); len(blocks) != 4 || len(again) > 0 {
		t.Errorf("asked for %v, and after a rejection for %v", blocks, again)
	}
	other := join(t, x, "10.0.0.2:1", "")
	if got := owes(x, other); len(got) != 4 {
		t.Errorf("the other is asked for %v", got)
	}
	x.Commands()
	x.SetTime(x.now + 2*rejectPause)
	for _, b := range blocks {
		x.Messages(k, []wire.Message{{Type: wire.Reject, Block: b}})
	}
	if got := x.Commands(); len(got) > 0 {
		t.Errorf("late rejections lead to %v", got)
	}
}
