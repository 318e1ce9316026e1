package cluster

import (
	"errors"
	"time"

	"github.com/hashicorp/memberlist"

	"viver.lan/internal/identity"
	"viver.lan/internal/operator"
)

// Bounds on the operator's overrides that others send us.
const (
	maxOverrideSignatures = 1000 // a second, of some 100 µs; the rest comes with a later exchange
	maxSenderLogs         = 5    // senders of bad overrides, a minute
)

// overrides is this machine's copy of the operator's overrides, and what of it is
// on its way to others. Its table is guarded by Cluster.mu.
//
// On the wire overrides stand behind the ID of the member that sends them: one in a
// message, all of them in an exchange of states.
type overrides struct {
	table      operator.Table
	queue      memberlist.TransmitLimitedQueue
	signatures rate // that are verified
	senderLogs rate
}

var errNoOwner = errors.New("this machine knows no owner's key to check the signature with")

// Put takes an override, if the operator signed it and it is newer than what is
// known, and sends it to all members.
func (c *Cluster) Put(o operator.Override) error {
	if c.cfg.Verify == nil {
		return errNoOwner
	}
	c.mu.Lock()
	err := c.overrides.table.Accept(o, c.cfg.Verify)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.broadcast(o)
	return nil
}

// Overrides returns all overrides, those taken back included.
func (c *Cluster) Overrides() []operator.Override {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.overrides.table.Overrides()
}

// broadcast sends an override that is in the table to the members.
func (c *Cluster) broadcast(o operator.Override) {
	c.log.Info("override of the operator", "key", o.Key, "value", o.Value)
	c.overrides.queue.QueueBroadcast(overrideBroadcast{o.Key, c.overrideMessage(o)})
	c.changes.Notify()
}

func (c *Cluster) overrideMessage(list ...operator.Override) []byte {
	return operator.Batch{Sender: c.cfg.Key.ID(), Overrides: list}.Append(nil)
}

// receiveOverrides takes overrides from another member.
func (c *Cluster) receiveOverrides(b []byte) {
	if len(b) == 0 || c.cfg.Verify == nil {
		return // it has none, or we cannot verify them
	}
	batch, err := operator.ParseBatch(b)
	for _, o := range batch.Overrides {
		if err := c.receiveOverride(o); err != nil {
			c.logSender(batch.Sender, err)
			return
		}
	}
	if err != nil {
		c.logSender(batch.Sender, err)
	}
}

// receiveOverride takes an override that another member passed on. The error speaks
// against that member; news that travel slowly do not.
func (c *Cluster) receiveOverride(o operator.Override) error {
	err := c.acceptWithinRate(o)
	switch {
	case err == nil:
		c.broadcast(o)
	case errors.Is(err, operator.ErrKnown):
	case errors.Is(err, operator.ErrOlder), errors.Is(err, operator.ErrNetwork):
		c.log.Debug("override dropped", "error", err)
	default:
		return err
	}
	return nil
}

// acceptWithinRate has the table take an override if its signature is right and
// there is time to verify it.
func (c *Cluster) acceptWithinRate(o operator.Override) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.overrides.table.Accept(o, func(message, signature []byte) error {
		if !c.overrides.signatures.allow(time.Now()) {
			return errTooMany
		}
		return c.cfg.Verify(message, signature)
	})
}

// logSender names the sender of an override that was dropped.
func (c *Cluster) logSender(sender identity.ID, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.overrides.senderLogs.allow(time.Now()) {
		c.reports.add(func() { c.log.Warn("override dropped", "sender", sender, "error", err) })
	}
}

// overrideState is what is handed over in an exchange of states.
func (c *Cluster) overrideState() []byte {
	list := c.Overrides()
	if len(list) == 0 {
		return nil
	}
	return c.overrideMessage(list...)
}

// overrideBroadcast is an override on its way. It implements
// memberlist.NamedBroadcast: a newer one of the same key takes its place.
type overrideBroadcast struct {
	key     string
	message []byte
}

func (b overrideBroadcast) Name() string                          { return b.key }
func (b overrideBroadcast) Message() []byte                       { return b.message }
func (b overrideBroadcast) Finished()                             {}
func (b overrideBroadcast) Invalidates(memberlist.Broadcast) bool { return false }
