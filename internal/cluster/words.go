package cluster

import (
	"errors"
	"time"

	"github.com/hashicorp/memberlist"

	"viver.lan/internal/operator"
)

// Bounds on the operator's entries that others send us.
const (
	checksPerSecond = 1000 // signatures, of some 100 µs; the rest comes with a later exchange
	namedPerMinute  = 5    // senders of bad entries, in the log
)

// words is this machine's copy of the operator's entries, and what of it is on
// its way to others. Its table is guarded by Cluster.mu.
//
// On the wire entries stand behind the name of the member that sends them: one
// entry in a message, all of them in an exchange of states.
type words struct {
	table  operator.Table
	queue  memberlist.TransmitLimitedQueue
	checks rate
	named  rate
}

var errNoOwner = errors.New("this machine knows no owner's key to check the signature with")

// Put takes an entry of the operator, if it is signed and newer than what is
// known, and tells it to all members.
func (c *Cluster) Put(e operator.Override) error {
	if c.cfg.Verify == nil {
		return errNoOwner
	}
	c.mu.Lock()
	err := c.words.table.Accept(e, c.cfg.Verify)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.passOn(e)
	return nil
}

// Overrides returns all overrides of the operator, those taken back included.
func (c *Cluster) Overrides() []operator.Override {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.words.table.Overrides()
}

// passOn tells the members about an entry that is in the table.
func (c *Cluster) passOn(e operator.Override) {
	c.log.Info("the operator says", "key", e.Key, "value", e.Value)
	c.words.queue.QueueBroadcast(word{e.Key, c.message(e)})
	c.changes.Notify()
}

// message is what this machine passes on.
func (c *Cluster) message(entries ...operator.Override) []byte {
	return operator.Batch{Sender: string(c.cfg.Key.ID()), Overrides: entries}.Append(nil)
}

// hearWords takes entries from another member.
func (c *Cluster) hearWords(b []byte) {
	if len(b) == 0 || c.cfg.Verify == nil {
		return // it has none, or we cannot judge them
	}
	m, err := operator.ParseBatch(b)
	for _, e := range m.Overrides {
		if err := c.accept(e); err != nil {
			c.blame(m.Sender, err)
			return
		}
	}
	if err != nil {
		c.blame(m.Sender, err)
	}
}

// accept takes an entry that another member passed on. The error speaks against
// that member; news that travel slowly do not.
func (c *Cluster) accept(e operator.Override) error {
	err := c.weigh(e)
	switch {
	case err == nil:
		c.passOn(e)
	case errors.Is(err, operator.ErrKnown):
	case errors.Is(err, operator.ErrOlder), errors.Is(err, operator.ErrNetwork):
		c.log.Debug("operator's entry dropped", "why", err)
	default:
		return err
	}
	return nil
}

// weigh has the table take an entry if its signature is right and there is time
// to check it.
func (c *Cluster) weigh(e operator.Override) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.words.table.Accept(e, func(message, signature []byte) error {
		if !c.words.checks.allow(time.Now()) {
			return errTooMany
		}
		return c.cfg.Verify(message, signature)
	})
}

// blame names the sender of an entry that was dropped.
func (c *Cluster) blame(from string, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.words.named.allow(time.Now()) {
		c.log.Warn("operator's entry dropped", "sender", from, "why", why)
	}
}

// allWords is what is handed over in an exchange of states.
func (c *Cluster) allWords() []byte {
	entries := c.Overrides()
	if len(entries) == 0 {
		return nil
	}
	return c.message(entries...)
}

// word is an entry on its way. It implements memberlist.NamedBroadcast: a newer
// one of the same key takes its place.
type word struct {
	key     string
	message []byte
}

func (w word) Name() string                            { return w.key }
func (w word) Message() []byte                         { return w.message }
func (w word) Finished()                               {}
func (w word) Invalidates(b memberlist.Broadcast) bool { return false }
