package netguard

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"viver.lan/internal/bootnet"
)

// carrier is the state of a link's carrier at the last check.
type carrier struct {
	lost time.Time // zero: there is one
}

// update returns what changed in words for people, "" for nothing, and whether the
// carrier is back.
func (c *carrier) update(there bool, now time.Time) (news string, back bool) {
	switch {
	case there == c.lost.IsZero():
		return "", false
	case there:
		away := now.Sub(c.lost)
		c.lost = time.Time{}
		return fmt.Sprintf("the carrier is back after %d s; a switch port with spanning tree needs 30 s more", int(away.Seconds())), true
	default:
		c.lost = now
		return "no carrier: cable pulled, or switch off; the address is kept", false
	}
}

// checkCarrier logs when the carrier goes and comes back. A link that somebody
// switched off has none, whatever the cable.
func (g *Guard) checkCarrier(l netlink.Link) {
	if l.Attrs().RawFlags&unix.IFF_UP == 0 {
		return
	}
	var news string
	var back bool
	g.set(func() { news, back = g.carrier.update(bootnet.HasCarrier(l), time.Now()) })
	if news != "" {
		g.log.Warn(news, "link", g.link.String(), "address", g.lease.Address)
	}
	if back {
		g.linkChanged.Send()
	}
}
