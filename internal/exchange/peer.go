package exchange

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"viver.lan/internal/identity"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// Endpoint is what is known of a connection when the handshake is over.
type Endpoint struct {
	// ID is the name that the peer uses on the wire.
	ID wire.PeerID
	// Addr is where it is, Machine what it runs on, as far as can be told; "" is
	// this machine.
	Addr    netip.AddrPort
	Machine string
	// Dialled is the address that was dialled, if it was not the peer who did.
	Dialled netip.AddrPort
	// Fast and Extended are the extensions that both ends know (BEP 6, BEP 10).
	Fast, Extended bool
	// Nonce is what the peer has to sign to prove its key.
	Nonce []byte
}

// peer is what is known of one connection.
type peer struct {
	x          *Exchange
	key        schedule.Key
	kind       schedule.Kind
	ready      bool // the extension handshake and the proof, if any, are here
	closing    bool
	interested bool
	name       string // for people

	lastData     time.Duration // last byte of a block that it was asked for
	lastHeard    time.Duration // last message, or byte of such a block
	since        time.Duration
	hello        wire.Hello
	greeted      bool          // hello is what it sent
	proved       bool          // that it holds its key
	node         identity.ID   // what follows from that key; zero for a stranger
	readyAt      time.Duration // since when it is ready
	contact      *contact
	block        int // bytes to request at once
	reason       error
	distrusted   bool          // as known at the last tick
	state        string        // at the last tick, see PeerStatus
	distrustSaid int           // one more than it had given when that was logged
	lastSent     time.Duration // when the last block was sent to it
	asked        requests      // of the peer, by this node
	queue        []wire.Block  // requests of the peer, to this node
	taken        int           // requests taken off the queue and not yet sent
	held         bool          // it is not its turn to be sent something
	turn         time.Duration // when it last was
	lane         schedule.Lane // whom it shares its turns with
	refused      bool          // a stranger whose request was rejected
	urgentPieces map[int]bool
	work         int // see TakeWork
	opening      int // the piece that was opened last and might wait, -1: none
	pexSent      map[netip.AddrPort]bool
	pexAt        time.Duration
	downloaded   uint64
	uploaded     uint64
	record       recordState
	recordAsked  time.Duration // when it was
	recordGiven  bool          // ours
	Endpoint
}

// outgoing reports whether this node dialled the peer.
func (p *peer) outgoing() bool { return p.Dialled.IsValid() }

// known reports whether it is known by its address or its key who the peer is: it is
// more than a claim.
func (p *peer) known() bool { return p.outgoing() || p.proved }

// named reports whether this node's own boot named the peer as the first node.
func (p *peer) named() bool { return p.contact != nil && p.contact.origin && p.known() }

// send has a message sent at once.
func (p *peer) send(m wire.Message) { p.x.do(Send{To: p.key, Message: m}) }

// sendExtended sends an extension message under the peer's number id for it, if it has one.
func (p *peer) sendExtended(id byte, payload []byte) {
	if id != 0 {
		p.send(wire.Extension(id, payload))
	}
}

func (p *peer) sendHint(id byte, piece int) { p.sendExtended(id, wire.PieceHint(piece)) }

// close has the connection ended.
func (p *peer) close(reason error) {
	if !p.closing {
		p.closing, p.reason = true, reason
		p.x.do(Close{p.key})
	}
}

// TakeWork returns what was done for a peer since the last time, beside what its
// messages cost as such, in units of what a HAVE costs.
func (x *Exchange) TakeWork(k schedule.Key) (work int) {
	if p := x.byKey[k]; p != nil {
		work, p.work = p.work, 0
	}
	return work
}

var (
	// ErrSelf says that the other end of a connection is this node.
	ErrSelf = errors.New("that is this node")
	// ErrDuplicate says that a connection is the second one to the same peer.
	ErrDuplicate = errors.New("connected already")
	errNoPlace   = errors.New("there is no place for another peer")
)

// Connected makes a peer of a connection, which is greeted; k names it from now on
// and no other ever. An error says that it is not wanted.
func (x *Exchange) Connected(k schedule.Key, e Endpoint) error {
	c := x.contacts.at[e.Dialled]
	if e.ID == x.name {
		if c != nil {
			c.self = true
		}
		return ErrSelf
	}
	p := &peer{Endpoint: e, x: x, key: k, name: e.Addr.String(), contact: c,
		since: x.now, lastHeard: x.now, block: wire.BlockSize, opening: -1}
	if err := x.makePlace(p); err != nil {
		return err
	}
	if c != nil {
		c.peer, c.hearsay = p, false
	}
	x.peers = append(x.peers, p)
	x.byKey[k] = p
	x.table.AddPeer(k)
	x.countSent(p, 0)
	if x.now < x.blame.distrusted[p.Addr.Addr()] {
		x.table.Suspect(k, x.now)
	}
	x.greet(p)
	if !p.Extended {
		x.setReady(p)
	}
	return nil
}

// Progress says when the last bytes came from a peer of a block that it was asked
// for. Only what it still owes then keeps it its name and its place.
func (x *Exchange) Progress(k schedule.Key, at time.Duration) {
	p := x.byKey[k]
	if p == nil {
		return
	}
	p.lastHeard = max(p.lastHeard, at)
	if len(p.asked) > 0 {
		p.lastData = max(p.lastData, at)
	}
}

// active notes that a message has come from a peer, and returns it.
func (x *Exchange) active(k schedule.Key) *peer {
	p := x.byKey[k]
	if p != nil {
		p.lastHeard = x.now
		x.table.Alive(k, x.now)
	}
	return p
}

// Messages takes messages of a peer that came together: none of them Piece, an
// extension handshake or a proof of a key.
func (x *Exchange) Messages(k schedule.Key, batch []wire.Message) {
	p := x.active(k)
	if p == nil {
		return
	}
	more := false // there may be more to ask for
	for _, m := range batch {
		if m.KeepAlive {
			continue
		}
		if err := x.onMessage(p, m); err != nil {
			p.close(err)
			return
		}
		more = more || m.Type != wire.Request && m.Type != wire.Cancel && m.Type != wire.Extended
	}
	if more {
		x.fill(p)
	}
}

func (x *Exchange) onMessage(p *peer, m wire.Message) error {
	switch m.Type {
	case wire.Choke:
		x.table.SetChoked(p.key, true)
		if !p.Fast { // BEP 3: what was asked is forgotten
			x.undoneAll(p)
			x.fillAll()
		}
	case wire.Unchoke:
		x.table.SetChoked(p.key, false)
	case wire.Have:
		p.onHave(m.Block.Piece, true)
	case wire.Bitfield: // aria2 sends it after other messages, whatever BEP 3 says
		return wire.ParseBitfield(m.Payload, x.cfg.Image.Pieces, func(i int) { p.onHave(i, true) })
	case wire.HaveAll, wire.HaveNone:
		if !p.Fast {
			return fmt.Errorf("%v without the fast extension", m.Type)
		}
		all, has := m.Type == wire.HaveAll, x.table.PeerPieces(p.key)
		for i := range x.cfg.Image.Pieces {
			if has.Has(i) != all {
				p.onHave(i, all)
			}
		}
	case wire.Request:
		return x.onRequest(p, m.Block)
	case wire.Cancel:
		p.onCancel(m.Block)
	case wire.Reject:
		if !p.Fast {
			return errors.New("reject without the fast extension")
		}
		x.onReject(p, m.Block)
	case wire.Extended:
		return x.onExtended(p, m)
	}
	return nil
}

// onHave notes that the peer has or has not piece i.
func (p *peer) onHave(i int, has bool) {
	x := p.x
	x.changed = true
	x.table.PeerHas(p.key, i, has)
	if !has {
		x.copies.ledger.Dropped(p.node, i, x.now)
	}
	x.seeding.PeerHas(p.key, i, has, x.now)
	if has && p.ready && x.table.Demanded(i) {
		x.seekFirst(i)
	}
}

func (x *Exchange) onExtended(p *peer, m wire.Message) error {
	n := x.cfg.Image.Pieces
	switch m.ExtendedID {
	case wire.IDPex:
		pex, err := wire.ParsePex(m.Payload)
		if err != nil {
			return err
		}
		for _, a := range pex.Added {
			x.addHearsay(a)
		}
	case wire.IDDontHave, wire.IDUrgent:
		i, err := wire.ParsePieceHint(m.Payload, n)
		switch {
		case err != nil:
			return err
		case m.ExtendedID == wire.IDUrgent:
			p.onUrgent(i)
		default:
			p.onHave(i, false)
		}
	case wire.IDChallenge:
		c, err := wire.ParseChallenge(m.Payload, n)
		if err != nil {
			return err
		}
		x.onChallenge(p, c)
	case wire.IDAnswer:
		a, err := wire.ParseAnswer(m.Payload, n)
		if err != nil {
			return err
		}
		x.onAnswer(p, a)
	case wire.IDRecordRequest:
		x.onRecordRequest(p)
	case wire.IDRecord:
		x.onRecord(p, m)
	}
	return nil
}

// Disconnected forgets a peer whose connection has ended. news says that people
// shall hear of it, and why; the exchange's own reason for a Close goes first.
func (x *Exchange) Disconnected(k schedule.Key, reason error, news bool) {
	p := x.byKey[k]
	if p == nil {
		return
	}
	if p.closing {
		reason, news = p.reason, p.reason != ErrDuplicate
	}
	p.closing, x.changed = true, true
	x.lastHeard = max(x.lastHeard, p.lastHeard)
	delete(x.byKey, k)
	x.peers = slices.DeleteFunc(x.peers, func(q *peer) bool { return q == p })
	if x.table.Given(k) == 0 && !x.table.Trusted(k) && p.kind != schedule.Origin {
		x.blame.distrust(p.Addr.Addr(), x.now)
	}
	x.table.RemovePeer(k)
	x.leaveProofs(p)
	for _, t := range x.tasks {
		if t.source == p {
			t.source = nil // the next peer begins the piece again
		}
	}
	x.contactLost(p)
	if p.kind != schedule.Stranger {
		x.owned = false
	}
	x.nextTurns()
	if news {
		x.log("peer lost", "addr", p.name, "kind", p.kind, "reason", reason)
	}
	x.seekDemanded()
	x.fillAll()
}
