package boothost

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"

	"viver.lan/internal/contain"
	"viver.lan/internal/ether"
)

// A network has several boot hosts at any time, so that none is missed. They
// do not talk about it: each works out from the members of the network whose
// turn it is, and those that are second or third answer DHCP a little later. A
// client takes the first answer it hears. So the death of the first costs a
// client that little time, and nobody has to be sure of the death.
const (
	// Hosts is how many machines serve at once.
	Hosts = 3
	// turnDelay is what each leaves to those before it.
	turnDelay = 700 * time.Millisecond
	// maxLate bounds the requests that wait for a turn.
	maxLate = 256
)

// Member is a live machine that could be a boot host.
type Member struct {
	MAC   ether.MAC
	First bool // it has the medium
}

// Turn returns the place of a machine among the boot hosts of its network: 0
// answers at once, Hosts and more not at all. Those with a medium come first:
// they hold everything and somebody set them up for it. All others come after,
// also where there is no medium any more: a machine that has just joined may
// not have heard of it.
func Turn(self Member, others []Member) int {
	all := append(slices.Clone(others), self)
	slices.SortFunc(all, func(a, b Member) int {
		if a.First != b.First {
			if a.First {
				return -1
			}
			return 1
		}
		return a.MAC.Compare(b.MAC)
	})
	turn := slices.Index(all, self)
	if !self.First {
		turn = max(turn, 1)
	}
	return turn
}

// lateRequest is a request whose answer waits for our turn.
type lateRequest struct {
	due  time.Time
	req  *dhcpv4.DHCPv4
	from netip.AddrPort
}

// later has a request answered in our turn. With too many waiting it is
// dropped: a client asks again.
func (s *dhcpServer) later(turn int, req *dhcpv4.DHCPv4, from netip.AddrPort) {
	select {
	case s.late <- lateRequest{time.Now().Add(time.Duration(turn) * turnDelay), req, from}:
	default:
		s.host.cfg.Log.Debug("too many requests wait for our turn", "mac", req.ClientHWAddr)
	}
}

// answerLate answers requests whose time has come, until ctx ends.
func (s *dhcpServer) answerLate(ctx context.Context, out *ipv4.PacketConn, aside *sync.WaitGroup) {
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-s.late:
			wait := time.NewTimer(time.Until(l.due))
			select {
			case <-ctx.Done():
				wait.Stop()
				return
			case <-wait.C:
				contain.Do(s.host.cfg.Log, "a DHCP packet", func() { s.answerSurely(ctx, out, l.req, l.from, aside) })
			}
		}
	}
}
