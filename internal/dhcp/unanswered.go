package dhcp

import (
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/ether"
)

// Bounds on what Unanswered remembers.
const (
	// askingPause is how long a machine may be silent and still count as asking:
	// firmware that gave up tries its other devices and then begins again.
	askingPause = 5 * time.Minute
	maxAsking   = 1024
)

// Unanswered tells how long machines have asked for a boot without success, by what
// a node overhears. It goes by the node's own clock: secs (RFC 2131) is what the machine
// says, and some firmware swaps its bytes. It is safe for concurrent use.
type Unanswered struct {
	now func() time.Time

	mu     sync.Mutex
	asking map[ether.MAC]asking
}

// asking is a machine that has asked, at the stage of its boot that kind tells.
type asking struct {
	kind        Kind
	first, last time.Time
}

// NewUnanswered returns an account of no machine.
func NewUnanswered(now func() time.Time) *Unanswered {
	return &Unanswered{now: now, asking: make(map[ether.MAC]asking)}
}

// Observe takes a client's message and returns how long that machine's firmware or iPXE
// has asked without getting further, which is iPXE after firmware and VIVER's
// initramfs after both; 0 for all others. To take an address is not enough, because a
// server that is not ours gives one without a boot program. The initramfs's own
// questions do not count: boot hosts ask alike, for other servers, and take nothing.
func (u *Unanswered) Observe(p *dhcpv4.DHCPv4) time.Duration {
	c, err := Classify(p)
	if err != nil || c.Kind == OtherClient || Marked(p) || !p.GatewayIPAddr.IsUnspecified() {
		return 0
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if c.Kind == Node {
		delete(u.asking, c.MAC)
		return 0
	}
	if p.MessageType() != dhcpv4.MessageTypeDiscover {
		return 0
	}
	now := u.now()
	a, known := u.asking[c.MAC]
	if !known || a.kind != c.Kind || now.Sub(a.last) > askingPause {
		a = asking{kind: c.Kind, first: now}
	}
	a.last = now
	if !known && len(u.asking) >= maxAsking {
		for other := range u.asking { // in no order: a flood does not choose who goes
			delete(u.asking, other)
			break
		}
	}
	u.asking[c.MAC] = a
	return now.Sub(a.first)
}
