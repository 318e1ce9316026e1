package boothost

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"

	"viver.lan/internal/contain"
	"viver.lan/internal/ether"
	"viver.lan/internal/sleep"
)

// A network has several boot hosts at any time, so that one may fail. They do not
// negotiate: each computes its rank from the members of the network, and those of
// rank 1 and 2 answer DHCP a little later. A client takes the first answer. So the
// death of the first boot host costs a client that little time, and no node has to
// know of the death.
const (
	// Hosts is how many machines serve at once.
	Hosts = 3
	// rankDelay is how much later each rank answers.
	rankDelay = 700 * time.Millisecond
	// maxDelayed bounds the requests that wait for their time.
	maxDelayed = 256
)

// Member is a live machine that could be a boot host.
type Member struct {
	MAC   ether.MAC
	First bool // it has the medium
}

// Rank returns the rank of a machine among the boot hosts of its network: 0 answers
// at once, Hosts and more not at all. Those with a medium come first: they hold
// everything and somebody set them up for it. All others have rank 1 at least, also
// when no machine with a medium is known: a machine that has just joined may not
// know of it yet.
func Rank(self Member, others []Member) int {
	rank := 0
	for _, m := range others {
		if m.First && !self.First || m.First == self.First && m.MAC.Compare(self.MAC) < 0 {
			rank++
		}
	}
	if !self.First {
		rank = max(rank, 1)
	}
	return rank
}

// delayedRequest is a request that is answered when its time has come.
type delayedRequest struct {
	due  time.Time
	req  *dhcpv4.DHCPv4
	from netip.AddrPort
}

// delay has a request answered after the delay of a rank. With too many waiting it
// is dropped: a client asks again.
func (s *dhcpServer) delay(rank int, req *dhcpv4.DHCPv4, from netip.AddrPort) {
	select {
	case s.delayed <- delayedRequest{time.Now().Add(time.Duration(rank) * rankDelay), req, from}:
	default:
		s.host.cfg.Log.Debug("too many delayed requests", "mac", req.ClientHWAddr)
	}
}

// answerDelayed answers requests whose time has come, until ctx ends.
func (s *dhcpServer) answerDelayed(ctx context.Context, out *ipv4.PacketConn, group *sync.WaitGroup) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-s.delayed:
			if sleep.For(ctx, time.Until(d.due)) == nil {
				contain.Do(s.host.cfg.Log, "a DHCP packet", func() { s.probeAndAnswer(ctx, out, d.req, d.from, group) })
			}
		}
	}
}
