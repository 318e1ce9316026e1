// Package cluster tells which machines are on the boot network right now.
//
// It is a thin layer over hashicorp/memberlist (SWIM gossip): who is there,
// under which address, with a few facts about each, and who has gone. It is
// not a consensus and elects nobody: whatever is decided from the list must be
// computable by every member for itself. What a member says of itself it signs, so
// nobody else can say it; but whoever is on the link can take part, under as many
// keys as it likes, so the list is advice, on which nothing may be given up that
// cannot be had back. The invariant: a member that answers is not called dead,
// none is out of sight for long, and its facts are its own and never replaced by
// older ones.
//
// A death is noticed by a probe that fails (0.8 s each), then the suspect has
// three such intervals to refute it, a little more among many (log10 of their
// number), and then each member probes the suspect itself three times in two
// seconds before it believes what it is told. That makes 6 to 8 s among 2 to 16
// members, 11 s among a hundred. The first two steps stop a machine that is
// merely busy, or frozen for up to 5 s, from being given up; the third
// stops those who are wrong or lie: a machine that wakes up and calls all others
// dead, a stranger's forged message. So memberlist's own means against the
// former (longer suspicion when others do not confirm it, slower probes by
// those who doubt their own health) are turned down, because they make
// decisions late when a whole room is switched off.
//
// Those who lost each other meet again: addresses are tried until they are a
// day old, and every machine sends beacons on its link, by multicast, for others
// that run its image, or the one that its owner published for its network.
package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"viver.lan/internal/event"
	"viver.lan/internal/identity"
	"viver.lan/internal/manifest"
	"viver.lan/internal/notify"
	"viver.lan/internal/operator"
	"viver.lan/internal/sleep"
)

// DefaultPort is the gossip port, TCP and UDP.
const DefaultPort = 7946

// State says what became of a member.
type State string

// The states of a member.
const (
	Alive State = "alive"
	Dead  State = "dead" // does not answer
	Left  State = "left" // said goodbye, or was switched off
)

// Member is a machine as the gossip knows it.
type Member struct {
	ID    identity.ID
	Addr  netip.AddrPort // of its gossip port
	Meta  Meta
	State State
	Since time.Time // when it came to this state
	// Self is true for this machine.
	Self bool
	// Names says whether the names that it uses are its own.
	NameState NameState

	otherImage bool   // it runs another image than ours, and is no peer, see isOther
	raw        string // its facts as they came, signed
	sequence   uint64
	listed     bool // memberlist calls it alive, and notices its death
	isSeed     bool // it is at the address of one of Config.Seeds
}

// Config is what a Cluster needs.
type Config struct {
	// Key is this machine's, Start the number of this start under it (see
	// keyfile.NextStart): what is said now is newer than what was said before.
	Key   identity.Key
	Start uint64
	Bind  netip.Addr // of the boot link, also what the others are told
	Port  uint16     // 0 means any free one
	// Network is the boot link's: nobody outside is talked to, whatever a
	// member says. Invalid means no limit.
	Network netip.Prefix
	// Seeds are the gossip addresses of those that this machine was told to join.
	Seeds []netip.AddrPort
	// Meta is what the others are told. Its Network is set when the machine knows
	// the network's name from an earlier start of this process.
	Meta Meta
	// SavedNetwork is the name that a network of this machine's had before; it is
	// used again where nobody has a name for the network.
	SavedNetwork string
	// Verify checks that the operator signed a message. Without it no override is
	// taken.
	Verify func(message, signature []byte) error `json:"-"`
	Log    *slog.Logger
	Events *event.Log

	// retryEvery is the pause between attempts to reach members that are gone;
	// 0 means 15 s.
	retryEvery time.Duration
	// patience divides the times that a machine waits before it gives the network
	// a name; 0 means 1.
	patience int
}

// Bounds on what the network can make us remember.
const (
	maxMembers     = 4096
	maxPerAddress  = 16 // members, where half of the places are taken
	maxSeeds       = 256
	maxBeaconJoins = 4 // of new machines, a second
	forgetAge      = 24 * time.Hour
)

// Cluster is this machine's membership.
type Cluster struct {
	cfg       Config
	list      *memberlist.Memberlist
	transport *transport
	addr      netip.AddrPort
	log       *slog.Logger
	changes   notify.Notifier // of the members, of other groups and of the overrides

	// mu guards what follows. memberlist calls us with its own locks held, so they are
	// taken before mu: nothing may call memberlist, or wait, with mu held.
	mu           sync.Mutex
	meta         Meta
	images       []manifest.Infohash // see SetImages
	networkAsked bool                // the operator waits for meta.Network
	members      map[identity.ID]Member
	seeds        []netip.AddrPort
	left         bool
	closed       bool
	suspects     map[identity.ID]*suspicion // alive members whose death is reported
	beaconJoins  rate
	groups       groups // of machines with other images, on the link
	conflictLogs rate
	wake         notify.Signal       // tells rejoin that there is somebody new to try
	suspected    notify.Signal       // tells probeSuspects that there is one
	joinQueue    chan netip.AddrPort // for joinQueued
	overrides    overrides
	names        names
	namesStale   bool   // names have to follow the members
	sequence     uint64 // of our latest facts
	strangers    strangers
	reports      reports
}

// New binds the gossip port. Nobody is contacted before Run; the caller must
// call Run or Close.
func New(cfg Config) (*Cluster, error) {
	if cfg.Key.IsZero() || !cfg.Bind.IsValid() || cfg.Bind.IsUnspecified() {
		return nil, fmt.Errorf("join cluster: want a key and the boot link's address, found %s and %s", cfg.Key, cfg.Bind)
	}
	cfg.patience = max(cfg.patience, 1)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.retryEvery == 0 {
		cfg.retryEvery = 15 * time.Second
	}
	if err := cfg.Meta.check(); err != nil {
		return nil, fmt.Errorf("join cluster: %w", err)
	}
	if err := (Meta{Network: cfg.SavedNetwork}).check(); err != nil {
		cfg.Log.Warn("the saved name of the network is not used", "error", err)
		cfg.SavedNetwork = ""
	}
	c := &Cluster{
		cfg:          cfg,
		log:          cfg.Log,
		meta:         cfg.Meta,
		members:      make(map[identity.ID]Member),
		suspects:     make(map[identity.ID]*suspicion),
		beaconJoins:  rate{limit: maxBeaconJoins, period: time.Second},
		groups:       groups{},
		conflictLogs: rate{limit: 2, period: time.Minute},
		wake:         notify.NewSignal(),
		suspected:    notify.NewSignal(),
		joinQueue:    make(chan netip.AddrPort, maxBeaconJoins),
		names:        make(names),
		sequence:     identity.Sequence(cfg.Start),
		strangers:    make(strangers),
		reports:      reports{added: notify.NewSignal()},
	}
	c.overrides = overrides{
		signatures: rate{limit: maxOverrideSignatures, period: time.Second},
		senderLogs: rate{limit: maxSenderLogs, period: time.Minute},
		queue:      memberlist.TransmitLimitedQueue{NumNodes: c.size, RetransmitMult: retransmit},
		table:      operator.Table{Network: cfg.Meta.Network},
	}
	c.addSeeds(cfg.Seeds...)
	list, err := c.createList()
	if err != nil {
		return nil, fmt.Errorf("join cluster on %s: %w", netip.AddrPortFrom(cfg.Bind, cfg.Port), err)
	}
	c.list = list
	return c, nil
}

// retransmit is how often a message is passed on, times the logarithm of the
// number of members.
const retransmit = 4

// label tells our gossip from other programs' on the same port.
const label = "viver/1"

// createList binds the gossip port and starts memberlist on it.
func (c *Cluster) createList() (*memberlist.Memberlist, error) {
	m := c.memberlistConfig()
	t, err := openTransport(c.cfg.Bind, c.cfg.Port, c.cfg.Network, &signatureBudget{needed: c.verificationNeeded}, c.log)
	if err != nil {
		return nil, err
	}
	c.transport, m.Transport, m.BindPort, m.AdvertisePort = t, t, t.GetAutoBindPort(), t.GetAutoBindPort()
	c.addr = netip.AddrPortFrom(c.cfg.Bind, uint16(t.GetAutoBindPort())) // is signed from now on
	list, err := memberlist.Create(m)
	if err != nil {
		_ = t.Shutdown()
		return nil, err
	}
	return list, nil
}

// memberlistConfig is memberlist's LAN profile with our changes.
func (c *Cluster) memberlistConfig() *memberlist.Config {
	m := memberlist.DefaultLANConfig()
	m.Name = c.cfg.Key.ID().String()
	m.Label = label
	m.BindAddr, m.AdvertiseAddr = c.cfg.Bind.String(), c.cfg.Bind.String()
	if c.cfg.Network.IsValid() {
		p := c.cfg.Network.Masked()
		m.CIDRsAllowed = []net.IPNet{{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	}
	m.ProbeInterval, m.ProbeTimeout = 800*time.Millisecond, 500*time.Millisecond
	m.SuspicionMult, m.SuspicionMaxTimeoutMult, m.AwarenessMaxMultiplier = 3, 1, 1
	m.TCPTimeout = 3 * time.Second // bounds one attempt to join
	m.PushPullInterval = 20 * time.Second
	m.DeadNodeReclaimTime = time.Second // a machine may come back with another address
	m.EnableCompression = false         // the messages are small, and CPU is what we lack
	m.RetransmitMult = retransmit
	delegate := &delegate{c}
	m.Delegate, m.Events, m.Alive, m.Conflict = delegate, delegate, delegate, delegate
	m.Logger = slog.NewLogLogger(c.log.Handler(), slog.LevelDebug)
	return m
}

// Addr returns the address and port that the others are told.
func (c *Cluster) Addr() netip.AddrPort { return c.addr }

// Members returns all members, this machine and those of the last day that are
// gone included, ordered by ID.
func (c *Cluster) Members() []Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Values(c.members), func(a, b Member) int { return a.ID.Compare(b.ID) })
}

// Peers returns the other machines that are alive and run our image, or one that SetImages
// named, ordered by ID.
func (c *Cluster) Peers() []Member {
	return slices.DeleteFunc(c.Members(), func(m Member) bool { return m.Self || m.otherImage || m.State != Alive })
}

// Watch returns a channel that holds a token whenever the members, what is heard of
// other groups or the operator's overrides changed since the last one was taken. stop
// ends it and must be called.
func (c *Cluster) Watch() (changed <-chan struct{}, stop func()) { return c.changes.Watch() }

// addSeeds adds addresses to try; the oldest are forgotten beyond a bound.
func (c *Cluster) addSeeds(seeds ...netip.AddrPort) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range seeds {
		if s.IsValid() && s.Port() != 0 && !slices.Contains(c.seeds, s) {
			c.seeds = append(c.seeds, s)
		}
	}
	if extra := len(c.seeds) - maxSeeds; extra > 0 {
		c.seeds = slices.Delete(c.seeds, 0, extra)
	}
	c.wake.Send()
}

// updateTimeout bounds the wait for one message to leave.
const updateTimeout = 5 * time.Second

// UpdateMeta changes the facts about this machine and tells the others, if edit changed
// any. edit must not keep what it is given.
func (c *Cluster) UpdateMeta(ctx context.Context, edit func(*Meta)) error {
	c.mu.Lock()
	meta := c.meta
	edit(&meta)
	meta.leaving = c.left
	meta.Network = cmp.Or(meta.Network, c.meta.Network)
	if err := meta.check(); err != nil {
		c.mu.Unlock()
		return fmt.Errorf("update cluster facts: %w", err)
	}
	c.meta = meta
	told := bytes.Equal(meta.append(nil), c.members[c.cfg.Key.ID()].Meta.append(nil))
	c.sortOut()
	c.mu.Unlock()
	if told {
		return nil
	}
	return c.announce(ctx)
}

// announce tells the others the facts as they are now.
func (c *Cluster) announce(ctx context.Context) error {
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return errClosed
	}
	err := c.list.UpdateNode(timeLeft(ctx))
	for try := 1; err != nil && try <= 3 && ctx.Err() == nil; try++ {
		c.transport.resetIncarnation(c.cfg.Key.ID())
		_ = sleep.For(ctx, time.Duration(try)*100*time.Millisecond) // memberlist has a queue
		err = c.list.UpdateNode(timeLeft(ctx))
	}
	if err != nil {
		return fmt.Errorf("update cluster facts: %w", err)
	}
	return nil
}

var errClosed = errors.New("this machine is no longer in the cluster")

// Leave says goodbye, so that the others do not wait for us. Run goes on until
// its context ends, and joins nobody any more.
func (c *Cluster) Leave(ctx context.Context) error {
	c.mu.Lock()
	c.left = true
	// memberlist does not tell the others' delegates a goodbye from a death, so
	// we announce it first.
	c.meta.leaving = true
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return errClosed // memberlist panics
	}
	if err := errors.Join(c.announce(ctx), c.list.Leave(timeLeft(ctx))); err != nil {
		return fmt.Errorf("leave cluster: %w", err)
	}
	return nil
}

// AnnounceOff tells the others that this machine is about to be switched off, which is a
// goodbye as soon as it does not answer any more.
func (c *Cluster) AnnounceOff(ctx context.Context) error {
	return c.UpdateMeta(ctx, func(m *Meta) { m.announced = true })
}

// timeLeft returns how long a message of memberlist's may take, which knows no
// contexts.
func timeLeft(ctx context.Context) time.Duration {
	d := updateTimeout
	if deadline, ok := ctx.Deadline(); ok {
		d = min(d, max(time.Until(deadline), time.Millisecond))
	}
	return d
}

// Close ends the gossip without a goodbye and waits for its goroutines. It may
// be called more than once.
func (c *Cluster) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	if err := c.list.Shutdown(); err != nil {
		return fmt.Errorf("close cluster: %w", err)
	}
	return nil
}
