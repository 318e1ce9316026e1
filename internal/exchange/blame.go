package exchange

import (
	"crypto/sha1"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"viver.lan/internal/identity"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

const (
	// strangerNames is of how many names wrong bytes have to come from an address
	// for all its strangers to be refused.
	strangerNames = 3
	// distrustFor is how long those who come from an address are asked for one
	// piece first, because one that came from there gave nothing.
	distrustFor = 2 * time.Minute
)

// sender is whoever sent bytes: a node by its key, anybody else by its address
// and the name that it uses there.
type sender struct {
	node identity.ID
	addr netip.Addr // of a stranger
	id   wire.PeerID
}

func (p *peer) sender() sender {
	if p.proved {
		return sender{node: p.node}
	}
	return sender{addr: p.Addr.Addr(), id: p.ID}
}

func (w sender) String() string {
	if !w.node.IsZero() {
		return w.node.String()
	}
	return w.addr.String()
}

// host is all strangers at the address of one.
func (w sender) host() sender { return sender{node: w.node, addr: w.addr} }

// blame remembers who sent wrong bytes, or nothing.
type blame struct {
	failed  map[int]failure
	banned  map[sender]time.Duration // until when
	strikes map[sender]int
	// distrusted are addresses from where somebody came who gave nothing; until
	// then who comes from there is asked for one piece first.
	distrusted map[netip.Addr]time.Duration
}

// failure remembers a piece that had a wrong hash.
type failure struct {
	digests [][sha1.Size]byte
	from    []sender
}

func newBlame() blame {
	return blame{failed: make(map[int]failure), banned: make(map[sender]time.Duration), strikes: make(map[sender]int),
		distrusted: make(map[netip.Addr]time.Duration)}
}

// refuses returns for how long a sender is refused yet.
func (b *blame) refuses(id sender, now time.Duration) time.Duration {
	return max(b.banned[id], b.banned[id.host()]) - now
}

// distrust remembers that who came from an address gave nothing worth having.
func (b *blame) distrust(host netip.Addr, now time.Duration) {
	if len(b.distrusted) >= maxHosts {
		maps.DeleteFunc(b.distrusted, func(_ netip.Addr, until time.Duration) bool { return now > until })
	}
	if len(b.distrusted) >= maxHosts {
		forgetLeast(b.distrusted, func(until time.Duration) time.Duration { return until })
	}
	b.distrusted[host] = now + distrustFor
}

// wrongPiece deals with a piece that does not have its hash. The first time nobody
// is blamed, because parts may have come from several peers and lines may
// fail: the piece is fetched again whole from one peer. When that fails too,
// this peer is proven bad.
func (x *Exchange) wrongPiece(i int, t *task, digests [][sha1.Size]byte) {
	x.stats.Failed++
	from := t.senders()
	for _, p := range x.peers {
		if slices.Contains(from, p.sender()) {
			x.table.Suspect(p.key, x.now)
		}
	}
	off := int64(i) * x.cfg.Image.PieceLength
	if t.whole {
		x.warn("wrong bytes", "piece", i, "offset", off, "peer", x.nameOf(from[0]))
		x.ban(from[0], fmt.Errorf("sent piece %d with wrong bytes", i))
		return
	}
	x.warn("wrong bytes, fetching the piece again whole from one peer", "piece", i, "offset", off)
	x.blame.failed[i] = failure{digests: digests, from: from}
}

// banCulprits compares the parts of a piece that is right with those of an earlier wrong
// one: who sent parts that differ is banned.
func (x *Exchange) banCulprits(i int, digests [][sha1.Size]byte) {
	f := x.blame.failed[i]
	delete(x.blame.failed, i)
	var bad []sender
	for n, d := range digests {
		if n < len(f.digests) && d != f.digests[n] && !slices.Contains(bad, f.from[n]) {
			bad = append(bad, f.from[n])
		}
	}
	for _, id := range bad {
		x.warn("wrong bytes came from", "piece", i, "peer", x.nameOf(id))
		x.ban(id, fmt.Errorf("sent parts of piece %d with wrong bytes", i))
	}
}

// ban drops a peer and refuses it for a time that grows with every strike. The first
// node is refused briefly: it may be the only source there is.
func (x *Exchange) ban(id sender, reason error) {
	b := &x.blame
	b.strikes[id]++
	if host := id.host(); host != id && b.strikes[id] == 1 {
		// A stranger may come back under another name again and again.
		if b.strikes[host]++; b.strikes[host] >= strangerNames {
			id = host
		}
	}
	pause := time.Duration(b.strikes[id]) * time.Minute
	for _, p := range x.peers {
		if w := p.sender(); w != id && w.host() != id {
			continue
		}
		if p.kind == schedule.Origin {
			pause /= 12
		}
		p.close(reason)
	}
	for old, until := range b.banned {
		if x.now > until+10*time.Minute {
			delete(b.banned, old)
			maps.DeleteFunc(b.strikes, func(w sender, _ int) bool { return w == old || w == old.host() || w.host() == old })
		}
	}
	b.banned[id] = x.now + pause
}

func (x *Exchange) nameOf(id sender) string {
	for _, p := range x.peers {
		if p.sender() == id {
			return p.name
		}
	}
	return id.String()
}
