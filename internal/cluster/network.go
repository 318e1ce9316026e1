package cluster

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"viver.lan/internal/sleep"
)

// A network has a name, so that what the operator signed for one is worth nothing
// in another. It is drawn at random when the operator has something to sign, and not
// before: until then a machine whose disk has kept a name, and what was signed for it,
// can bring both back, whichever machine of the network that is and whenever it boots.
// Whoever joins takes the name over, and keeps it for as long as it runs.

// How long a machine without a name for its network waits before it decides by
// itself.
const (
	seedPatience     = time.Second      // for other members at the address of a seed
	conflictPatience = 15 * time.Second // when those differ: who lies about its address is found out before
	joinPatience     = 3 * time.Second  // for others' names
	savedPatience    = 10 * time.Second // before the name that a disk has kept is used again
	choosePause      = 500 * time.Millisecond
)

// choice is what a machine knows when it needs a name for its network.
type choice struct {
	// members are those that are alive and of our network as far as their image says, this
	// one included, and whoever booted this machine, whatever that one runs.
	members []Member
	// seeds are the addresses of those that this machine was told to join.
	seeds []netip.Addr
	// saved is the name that a disk has kept, "" for none.
	saved string
	// asked says that the operator waits for a name.
	asked bool
	// waited is for how long the machine takes part, and patience divides the
	// times above; 1 is right outside of tests.
	waited   time.Duration
	patience int
	// named is for how long others have had a name.
	named time.Duration
}

// network returns the name to take: that of the member at the address of a seed;
// where there is no seed, the one that most members use; and begin reports whether it
// is time to begin with a name of its own.
//
// A member says itself at which address it is, and does not answer there when that
// is a lie. So members of one address that differ are waited for.
func (w choice) network() (name string, begin bool) {
	waited := w.waited * time.Duration(w.patience)
	votes := make(map[string]int)
	var self, starter Member // who begins where several could
	var seeds []Member       // those at the address of one
	for _, m := range w.members {
		switch {
		case m.Self:
			self = m
		case slices.Contains(w.seeds, m.Addr.Addr()):
			seeds = append(seeds, m)
		}
		if !m.Self && m.Meta.Network != "" {
			votes[m.Meta.Network]++
		}
		// The first nodes before others: all follow those that booted them.
		if m.Meta.Network == "" && (starter.ID.IsZero() || m.Meta.First && !starter.Meta.First || m.Meta.First == starter.Meta.First && m.ID.Compare(starter.ID) < 0) {
			starter = m
		}
	}
	if name := agreed(seeds, waited); name != "" {
		return name, false
	}
	if waited < joinPatience || slices.ContainsFunc(seeds, func(m Member) bool { return m.Meta.Network != "" }) {
		return "", false
	}
	// A seed takes the name of the others by itself, unless it follows us.
	if len(seeds) == 0 || w.named*time.Duration(w.patience) >= conflictPatience {
		for n, count := range votes {
			if c := cmp.Compare(count, votes[name]); name == "" || c > 0 || c == 0 && n < name {
				name = n
			}
		}
	}
	if len(votes) > 0 { // somebody has begun: a seed takes that name soon, or we do
		return name, false
	}
	if w.asked {
		return "", true
	}
	// The starter may be one whose disk has kept nothing.
	return "", w.saved != "" && waited >= savedPatience && (starter.ID == self.ID || waited >= 2*savedPatience)
}

// agreed returns the name that all members at the address of a seed say; where they
// differ for long, that of the one that has been there longest.
func agreed(seeds []Member, waited time.Duration) string {
	if len(seeds) == 0 || waited < seedPatience {
		return ""
	}
	eldest := slices.MinFunc(seeds, func(a, b Member) int { return cmp.Or(a.Since.Compare(b.Since), a.ID.Compare(b.ID)) })
	name := eldest.Meta.Network
	if waited < conflictPatience && slices.ContainsFunc(seeds, func(m Member) bool { return m.Meta.Network != name }) {
		return ""
	}
	return name
}

// newNetworkName draws one.
func newNetworkName() string {
	b := make([]byte, 10)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return strings.ToLower(base32.StdEncoding.EncodeToString(b))
}

// Network returns the name of the network that this machine is on, "" when it
// knows none yet.
func (c *Cluster) Network() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.meta.Network
}

// BeginNetwork has this machine name the network, if nobody has: the operator wants to
// sign something for it. Watch tells when that is done.
func (c *Cluster) BeginNetwork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.networkAsked = true
}

// chooseNetwork finds out the network's name, once.
func (c *Cluster) chooseNetwork(ctx context.Context) error {
	begin := time.Now()
	var named time.Time // since when others have a name, zero where none has
	for c.Network() == "" {
		if sleep.For(ctx, choosePause/time.Duration(c.cfg.patience)) != nil {
			return nil
		}
		w := c.choice(time.Since(begin))
		switch {
		case !slices.ContainsFunc(w.members, func(m Member) bool { return m.Meta.Network != "" }):
			named = time.Time{}
		case named.IsZero():
			named = time.Now()
		default:
			w.named = time.Since(named)
		}
		name, ours := w.network()
		if ours {
			name = cmp.Or(c.cfg.SavedNetwork, newNetworkName())
		}
		if name == "" {
			continue
		}
		c.log.Info("the network has a name", "network", name, "new", ours && c.cfg.SavedNetwork == "")
		c.mu.Lock()
		c.meta.Network, c.overrides.table.Network = name, name
		c.changes.Notify()
		c.mu.Unlock()
		if err := c.announce(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("the network's name is told later", "error", err)
		}
		// Overrides that came before were for a network that we did not know.
		if peers := c.Peers(); len(peers) > 0 {
			c.join(ctx, peers[mathrand.IntN(len(peers))].Addr)
		}
	}
	return nil
}

func (c *Cluster) choice(waited time.Duration) choice {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := choice{seeds: c.seedAddrs(), saved: c.cfg.SavedNetwork, asked: c.networkAsked, waited: waited, patience: c.cfg.patience}
	for _, m := range c.members {
		if m.State == Alive && (!m.otherImage || m.isSeed) {
			w.members = append(w.members, m)
		}
	}
	return w
}

// seedAddrs returns the addresses that this machine was told to join.
func (c *Cluster) seedAddrs() (addrs []netip.Addr) {
	for _, s := range c.cfg.Seeds {
		addrs = append(addrs, s.Addr())
	}
	return addrs
}
