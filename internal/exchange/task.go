package exchange

import (
	"crypto/sha1"
	"time"

	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// task is a piece being put together.
type task struct {
	parts []part // per wire.BlockSize of the piece
	left  int    // parts missing
	sum   []byte // of a piece that came as one block
	// whole: the piece failed before, so it has to come from one peer.
	whole  bool
	source *peer // of a whole task
	done   bool  // all parts are here, being verified
}

type part struct {
	Part
	from *peer
	here bool
}

func (x *Exchange) newTask(i int) *task {
	n := (x.pieceSize(i) + wire.BlockSize - 1) / wire.BlockSize
	_, failed := x.blame.failed[i]
	t := &task{parts: make([]part, n), left: n, whole: failed}
	x.tasks[i] = t
	return t
}

// add takes a block; it reports whether any of its bytes was missing.
func (t *task) add(b wire.Block, buf *[]byte, sum []byte, from *peer) (used bool) {
	if t.left == len(t.parts) {
		t.sum = sum
	}
	for off := 0; off < b.Length; off += wire.BlockSize {
		p := &t.parts[(b.Begin+off)/wire.BlockSize]
		if !p.here {
			*p = part{Part{buf, off, min(off+wire.BlockSize, b.Length)}, from, true}
			t.left--
			used = true
		}
	}
	return used
}

func (t *task) senders() (from []sender) {
	for _, p := range t.parts {
		from = append(from, p.from.sender())
	}
	return from
}

// verify says how a complete task is verified.
func (t *task) verify(i int) *Verify {
	v := &Verify{Piece: i, Sum: t.sum, Digests: t.whole, Parts: make([]Part, len(t.parts))}
	for n, p := range t.parts {
		v.Parts[n] = p.Part
	}
	return v
}

// missing returns the parts of a piece that are not here, as blocks of at most
// the given size.
func (t *task) missing(i, size, most int) (blocks []wire.Block) {
	for begin := 0; begin < size; {
		if t.parts[begin/wire.BlockSize].here {
			begin += wire.BlockSize
			continue
		}
		end := begin
		for end < size && end-begin < most && !t.parts[end/wire.BlockSize].here {
			end += wire.BlockSize
		}
		end = min(end, size)
		blocks = append(blocks, wire.Block{Piece: i, Begin: begin, Length: end - begin})
		begin = end
	}
	return blocks
}

// request asks p for all that is missing of piece i, which the table has
// noted as asked already.
func (x *Exchange) request(p *peer, i int) {
	t := x.tasks[i]
	if t == nil {
		t = x.newTask(i)
	}
	if t.whole && t.source != p {
		if t.source != nil {
			x.withdraw(t.source, i)
		}
		t = x.newTask(i)
		t.source = p
	}
	blocks := t.missing(i, x.pieceSize(i), p.block)
	p.asked.add(i, blocks)
	for _, b := range blocks {
		p.send(wire.Message{Type: wire.Request, Block: b})
	}
	if x.table.Demanded(i) {
		p.sendHint(p.hello.M.Urgent, i)
	}
}

// BlockArrived takes a block that a peer has sent, in buf; sum is its SHA-1 when
// it is a whole piece. It reports whether the block is of use: if not, the buffer is
// free again. When the piece is complete, Verified has to follow.
func (x *Exchange) BlockArrived(k schedule.Key, b wire.Block, buf *[]byte, sum []byte) (used bool, complete *Verify) {
	p := x.byKey[k]
	if p == nil {
		return false, nil
	}
	x.count(p, b)
	asked, done := p.asked.forget(b)
	if asked {
		p.lastData = x.now
	} else {
		p.work++ // a block that nobody asked for costs as much as a HAVE
	}
	if done {
		x.table.Done(k, b.Piece, x.now)
	}
	t := x.tasks[b.Piece]
	if used = asked && t != nil && !t.done && (!t.whole || t.source == p) && t.add(b, buf, sum, p); !used {
		x.stats.Wasted += uint64(b.Length)
	} else if t.left == 0 {
		t.done = true
		x.table.Verifying(b.Piece)
		for _, k := range x.table.Asked(b.Piece) {
			x.withdraw(x.byKey[k], b.Piece)
		}
		complete = t.verify(b.Piece)
	}
	x.fill(p)
	return used, complete
}

// Unasked takes note of a block that nobody asked the peer for, and whose bytes are
// not kept. It is no sign that the peer gives anything.
func (x *Exchange) Unasked(k schedule.Key, b wire.Block) {
	if p := x.active(k); p != nil {
		x.count(p, b)
		p.work++
		x.stats.Wasted += uint64(b.Length)
	}
}

// count counts the bytes of a block that came from p.
func (x *Exchange) count(p *peer, b wire.Block) {
	p.lastHeard, x.changed = x.now, true
	p.downloaded += uint64(b.Length)
	if p.kind == schedule.Origin {
		x.stats.FromOrigin += uint64(b.Length)
	} else {
		x.stats.FromPeers += uint64(b.Length)
	}
}

// withdraw cancels what p still owes of piece i.
func (x *Exchange) withdraw(p *peer, i int) {
	if p.cancel(i) {
		x.table.Withdrawn(p.key, i, x.now)
	}
}

// cancel cancels what p owes of piece i, and reports whether it owed any.
func (p *peer) cancel(i int) bool {
	blocks := p.asked.remove(i)
	for _, b := range blocks {
		p.send(wire.Message{Type: wire.Cancel, Block: b})
	}
	return len(blocks) > 0
}

// rejectPause is how long a peer is not asked again for a piece that it rejected.
const rejectPause = 250 * time.Millisecond

// onReject takes a peer's refusal to send a block. Of a piece that has to come whole
// from one peer it then need not send the rest. What was withdrawn before is no news:
// to ask somebody else for it would withdraw it from whom it is asked now.
func (x *Exchange) onReject(p *peer, b wire.Block) {
	asked, done := p.asked.forget(b)
	if !asked {
		return
	}
	if t := x.tasks[b.Piece]; t != nil && t.whole {
		done = p.cancel(b.Piece) || done
	}
	if done {
		x.table.Undone(p.key, b.Piece, x.now, rejectPause)
	}
	if x.table.Demanded(b.Piece) {
		x.seek(b.Piece, true)
	}
}

// undoneAll forgets all that p was asked for.
func (x *Exchange) undoneAll(p *peer) {
	asked := p.asked
	p.asked = nil
	for _, o := range asked {
		x.table.Undone(p.key, o.piece, x.now, 0)
	}
}

// Verdict is what came of a Verify.
type Verdict struct {
	Piece int
	// Right says that it has its hash, Held that the store has it now.
	Right, Held bool
	// Err says why it was not kept, or not looked at.
	Err error
	// Digests are the SHA-1s of the parts of a piece that is wrong, and of others
	// if they were wanted.
	Digests [][sha1.Size]byte
}

// Verified takes what came of a Verify.
func (x *Exchange) Verified(v Verdict) {
	i := v.Piece
	t := x.tasks[i]
	if t == nil || !t.done {
		return
	}
	delete(x.tasks, i)
	x.changed = true
	if v.Right {
		x.banCulprits(i, v.Digests)
	}
	x.table.SetHeld(i, v.Right && v.Err == nil && v.Held)
	switch {
	case v.Err != nil:
		x.warn("piece not kept", "piece", i, "error", v.Err)
		if x.table.Wanted(i) { // else it would be fetched again and again
			x.table.Want(i, false)
			x.paused[i] = x.now + 30*time.Second
		}
	case !v.Right:
		x.wrongPiece(i, t, v.Digests)
	case v.Held: // the store may have evicted it again already
		x.announce(i)
	}
	x.fillAll()
}

// Want says which of the pieces from lo up to hi shall be fetched when there is
// nothing better to do.
func (x *Exchange) Want(lo, hi int, want func(i int) bool) {
	changed := false
	for i := max(lo, 0); i < min(hi, x.cfg.Image.Pieces); i++ {
		_, paused := x.paused[i]
		switch w := want(i); {
		case !w:
			delete(x.paused, i)
			x.table.Want(i, false)
		case !paused && !x.table.Wanted(i):
			x.table.Want(i, true)
			changed = true
		}
	}
	if changed {
		x.fillAll()
	}
}

// Demand says whether somebody waits for piece i: it is asked for at once and
// before all others.
func (x *Exchange) Demand(i int, demand bool) {
	if x.table.Demand(i, demand); !demand {
		return
	}
	for _, k := range x.table.Asked(i) {
		p := x.byKey[k]
		p.sendHint(p.hello.M.Urgent, i)
	}
	x.seekFirst(i)
}

// SetPlayhead tells at which piece this node reads.
func (x *Exchange) SetPlayhead(i int) { x.table.SetPlayhead(i) }

// Held returns the set of pieces that this node holds; it must not be changed.
func (x *Exchange) Held() *schedule.Set { return x.table.Held() }

// SetHeld says whether piece i is held, although no peer has brought it; peers are
// told (of a loss by BEP 54).
func (x *Exchange) SetHeld(i int, held bool) {
	was := x.table.Held().Has(i)
	x.changed = x.changed || was != held
	switch {
	case held && !was:
		x.table.SetHeld(i, true)
		x.announce(i)
	case was && !held:
		x.table.SetHeld(i, false)
		if t := x.tasks[i]; t != nil && t.done { // it came from a peer as well
			x.table.Verifying(i)
		}
		for _, p := range x.peers {
			p.sendHint(p.hello.M.DontHave, i)
		}
	}
}

// announce tells all peers that piece i can be had here, some of them a
// little later.
func (x *Exchange) announce(i int) {
	complete := x.table.Complete()
	to := make([]schedule.Key, len(x.peers)) // now those before n, later those from m on
	n, m := 0, len(to)
	for _, p := range x.peers {
		if delay := x.table.HaveDelay(p.key, i); delay > 0 {
			m--
			to[m] = p.key
			x.wakeWithin(delay)
		} else {
			to[n] = p.key
			n++
		}
	}
	for _, a := range [2]Announce{{i, to[:n], false}, {i, to[m:], true}} {
		if len(a.To) > 0 {
			x.do(a)
		}
	}
	for _, p := range x.peers {
		// libtorrent that had requests rejected and now has none left does not
		// ask on a Have, only when it is told that it may.
		if p.refused && len(p.queue)+p.taken == 0 {
			p.send(wire.Message{Type: wire.Unchoke})
		}
		if complete && p.interested {
			p.interested = false
			p.send(wire.Message{Type: wire.NotInterested})
		}
	}
}
