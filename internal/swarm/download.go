package swarm

import (
	"crypto/sha1"
	"fmt"
	"slices"
	"sync"
	"time"

	"viver.lan/internal/contain"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// task is a piece being put together.
type task struct {
	parts [][]byte  // per wire.BlockSize of the piece, nil when missing
	from  []sender  // who sent each part
	bufs  []*[]byte // what the parts lie in
	left  int       // parts missing
	sum   []byte    // of a piece that came as one block
	// whole: the piece failed before, so it has to come from one peer.
	whole  bool
	source *peer // of a whole task
	done   bool  // all parts are here, being verified
}

// failure remembers a piece that had a wrong hash.
type failure struct {
	digests [][sha1.Size]byte
	from    []sender
}

func (s *Swarm) newTask(i int) *task {
	n := int((s.cfg.Info.PieceSize(i) + wire.BlockSize - 1) / wire.BlockSize)
	return &task{parts: make([][]byte, n), from: make([]sender, n), left: n, whole: s.failed[i] != nil}
}

// has reports whether all parts of a block are here.
func (t *task) has(b wire.Block) bool {
	for n := b.Begin / wire.BlockSize; n*wire.BlockSize < b.Begin+b.Length; n++ {
		if t.parts[n] == nil {
			return false
		}
	}
	return true
}

// add takes the block's bytes; it reports whether any of them was missing.
func (t *task) add(b wire.Block, buf *[]byte, from sender) bool {
	used := false
	for off := 0; off < b.Length; off += wire.BlockSize {
		n := (b.Begin + off) / wire.BlockSize
		if t.parts[n] == nil {
			t.parts[n] = (*buf)[off:min(off+wire.BlockSize, b.Length)]
			t.from[n] = from
			t.left--
			used = true
		}
	}
	if used {
		t.bufs = append(t.bufs, buf)
	}
	return used
}

// request asks p for all that is missing of piece i, which the table has
// noted as asked already.
func (s *Swarm) request(p *peer, i int) {
	t := s.tasks[i]
	if t == nil {
		t = s.newTask(i)
		s.tasks[i] = t
	}
	if t.whole && t.source != p {
		if t.source != nil {
			s.withdraw(t.source, i)
		}
		s.recycle(t)
		t = s.newTask(i)
		t.source = p
		s.tasks[i] = t
	}
	size := int(s.cfg.Info.PieceSize(i))
	for begin := 0; begin < size; {
		if t.parts[begin/wire.BlockSize] != nil {
			begin += wire.BlockSize
			continue
		}
		end := begin
		for end < size && end-begin < p.block && t.parts[end/wire.BlockSize] == nil {
			end += wire.BlockSize
		}
		end = min(end, size)
		blk := wire.Block{Piece: i, Begin: begin, Length: end - begin}
		if _, asked := p.asked[blk]; !asked {
			p.asked[blk] = struct{}{}
			p.owes[i]++
			p.say(wire.AppendBlock(nil, wire.Request, blk))
		}
		begin = end
	}
	if s.demanded[i] {
		s.hint(p, i)
	}
}

// hint tells one of our nodes that somebody waits for piece i.
func (s *Swarm) hint(p *peer, i int) {
	if p.hello.M.Urgent != 0 {
		p.say(wire.AppendPieceHint(nil, p.hello.M.Urgent, i))
	}
}

// expects reports whether the block that p begins to send is of use.
func (s *Swarm) expects(p *peer, b wire.Block) bool {
	if _, ok := p.asked[b]; !ok {
		return false
	}
	t := s.tasks[b.Piece]
	return t != nil && !t.done && !t.has(b) && (!t.whole || t.source == p)
}

// settleBlock forgets the request for b; when p then owes nothing more of the
// piece, after is called.
func (p *peer) settleBlock(b wire.Block, after func()) {
	if _, ok := p.asked[b]; !ok {
		return
	}
	delete(p.asked, b)
	if p.owes[b.Piece]--; p.owes[b.Piece] == 0 {
		delete(p.owes, b.Piece)
		after()
	}
}

// received takes a block that p has sent. buf is nil when it was of no use,
// sum its digest when it is a whole piece.
func (s *Swarm) received(p *peer, b wire.Block, buf *[]byte, sum []byte) {
	s.mu.Lock()
	unlock := sync.OnceFunc(s.mu.Unlock)
	defer unlock()
	now := s.now()
	p.downloaded += uint64(b.Length)
	if p.kind == schedule.Origin {
		s.stats.FromOrigin += uint64(b.Length)
	} else {
		s.stats.FromPeers += uint64(b.Length)
	}
	useful := buf != nil && s.expects(p, b)
	p.settleBlock(b, func() { s.table.Done(p.key, b.Piece, now) })
	t := s.tasks[b.Piece]
	if !useful || !t.add(b, buf, p.sender()) {
		s.stats.Wasted += uint64(b.Length)
		s.fill(p)
		unlock()
		s.free(buf)
		return
	}
	complete := t.left == 0
	if complete {
		t.sum = sum
		t.done = true
		s.table.Settling(b.Piece)
		for _, q := range s.peers {
			s.withdraw(q, b.Piece)
		}
	}
	s.fill(p)
	unlock()
	if complete {
		s.finish(b.Piece, t)
	}
}

// withdraw cancels what p still owes of piece i.
func (s *Swarm) withdraw(p *peer, i int) {
	if p.owes[i] == 0 {
		return
	}
	for b := range p.asked {
		if b.Piece == i {
			delete(p.asked, b)
			p.say(wire.AppendBlock(nil, wire.Cancel, b))
		}
	}
	delete(p.owes, i)
	s.table.Withdrawn(p.key, i, s.now())
}

// undone notes that p will not send block b.
func (s *Swarm) undone(p *peer, b wire.Block, pause time.Duration) {
	p.settleBlock(b, func() { s.table.Undone(p.key, b.Piece, s.now(), pause) })
}

// rejectPause is how long a peer is not asked again for a piece that it rejected.
const rejectPause = 250 * time.Millisecond

// rejected takes p's word that it will not send block b. Of a piece that has to come
// whole from one peer it then need not send the rest. What was withdrawn before is
// no news: to ask somebody else for it would withdraw it from whom it is asked now.
func (s *Swarm) rejected(p *peer, b wire.Block) {
	if _, ok := p.asked[b]; !ok {
		return
	}
	s.undone(p, b, rejectPause)
	if t := s.tasks[b.Piece]; t != nil && t.whole {
		for other := range p.asked {
			if other.Piece == b.Piece {
				p.say(wire.AppendBlock(nil, wire.Cancel, other))
				s.undone(p, other, rejectPause)
			}
		}
	}
	if s.demanded[b.Piece] {
		s.seek(b.Piece, true)
	}
	s.fill(p)
}

// finish verifies a piece whose parts are all here and stores it. It runs
// without the lock: nobody else touches a task that is done. A fault in that ends
// the task, so that the piece is fetched again.
func (s *Swarm) finish(i int, t *task) {
	right := false
	err := contain.Call(s.log, "a piece that has come", func() error {
		var parts [][]byte
		if parts, right = s.verify(i, t); !right {
			return nil
		}
		return s.cfg.Store.Put(i, parts)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tasks, i)
	if right {
		s.acquit(i, t)
	}
	switch {
	case err != nil:
		s.log.Warn("piece not kept", "piece", i, "err", err)
		s.table.SetHeld(i, false)
		if s.table.Wanted(i) { // else it would be fetched again and again
			s.table.Want(i, false)
			s.paused[i] = s.now() + 30*time.Second
		}
	case !right:
		s.table.SetHeld(i, false)
		s.wrong(i, t)
	default:
		// The store may have evicted it again already.
		held := s.cfg.Store.Has(i)
		s.table.SetHeld(i, held)
		if held {
			s.announce(i)
		}
	}
	s.recycle(t)
	s.fillAll()
}

// verify returns the parts of a piece and whether it has its hash.
func (s *Swarm) verify(i int, t *task) ([][]byte, bool) {
	if len(t.bufs) == 1 && t.sum != nil { // it came as one block
		whole := (*t.bufs[0])[:s.cfg.Info.PieceSize(i)]
		return [][]byte{whole}, [sha1.Size]byte(t.sum) == s.cfg.Info.PieceHash(i)
	}
	return t.parts, s.cfg.Info.Verify(i, t.parts...)
}

// wrong deals with a piece that does not have its hash. The first time nobody
// is blamed, because parts may have come from several peers and lines may
// fail: the piece is fetched again whole from one peer. When that fails too,
// this peer is proven bad.
func (s *Swarm) wrong(i int, t *task) {
	s.stats.Failed++
	for k, p := range s.peers {
		if slices.Contains(t.from, p.sender()) {
			s.table.Suspect(k, s.now())
		}
	}
	off := s.cfg.Info.PieceOffset(i)
	if t.whole {
		s.log.Warn("wrong bytes", "piece", i, "offset", off, "peer", s.nameOf(t.from[0]))
		s.ban(t.from[0], fmt.Errorf("sent piece %d with wrong bytes", i))
		return
	}
	s.log.Warn("wrong bytes, fetching the piece again whole from one peer", "piece", i, "offset", off)
	s.failed[i] = &failure{digests: digests(t.parts), from: t.from}
}

// acquit compares a right piece with an earlier wrong one: who sent parts
// that differ is proven bad.
func (s *Swarm) acquit(i int, t *task) {
	f := s.failed[i]
	if f == nil {
		return
	}
	delete(s.failed, i)
	var bad []sender
	for n, d := range digests(t.parts) {
		if d != f.digests[n] && !slices.Contains(bad, f.from[n]) {
			bad = append(bad, f.from[n])
		}
	}
	for _, id := range bad {
		s.log.Warn("wrong bytes came from", "piece", i, "peer", s.nameOf(id))
		s.ban(id, fmt.Errorf("sent parts of piece %d with wrong bytes", i))
	}
}

func digests(parts [][]byte) [][sha1.Size]byte {
	var out [][sha1.Size]byte
	for _, p := range parts {
		out = append(out, sha1.Sum(p))
	}
	return out
}

// strangerNames is of how many names wrong bytes have to come from an address
// for all its strangers to be refused.
const strangerNames = 3

// ban drops a peer and refuses it for a time that grows with every strike.
// The first node is refused briefly: it may be the only source there is.
func (s *Swarm) ban(id sender, why error) {
	s.strikes[id]++
	if host := id.host(); host != id && s.strikes[id] == 1 {
		// A stranger may come back under another name again and again.
		if s.strikes[host]++; s.strikes[host] >= strangerNames {
			id = host
		}
	}
	pause := time.Duration(s.strikes[id]) * time.Minute
	for _, p := range s.peers {
		if w := p.sender(); w != id && w.host() != id {
			continue
		}
		if p.kind == schedule.Origin {
			pause /= 12
		}
		p.close(why)
	}
	for old, until := range s.banned {
		if s.now() > until+10*time.Minute {
			delete(s.banned, old)
			delete(s.strikes, old)
			delete(s.strikes, old.host())
		}
	}
	s.banned[id] = s.now() + pause
}

func (s *Swarm) nameOf(id sender) string {
	for _, p := range s.peers {
		if p.sender() == id {
			return p.name
		}
	}
	return id.String()
}

// buffer returns a buffer for a block of n bytes.
func (s *Swarm) buffer(n int) *[]byte {
	if n <= wire.BlockSize {
		return s.blocks.Get().(*[]byte)
	}
	return s.wholes.Get().(*[]byte)
}

func (s *Swarm) free(buf *[]byte) {
	switch {
	case buf == nil:
	case len(*buf) == wire.BlockSize:
		s.blocks.Put(buf)
	default:
		s.wholes.Put(buf)
	}
}

func (s *Swarm) recycle(t *task) {
	for _, b := range t.bufs {
		s.free(b)
	}
	t.bufs, t.parts = nil, nil
}
