package netguard

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"viver.lan/internal/bootnet"
)

// cable is what was last seen of a link's carrier.
type cable struct {
	pulled time.Time // zero: plugged in
}

// update returns what is to be said of the carrier, "" when it is as it was, and
// whether it is back.
func (c *cable) update(carrier bool, now time.Time) (news string, back bool) {
	switch {
	case carrier == c.pulled.IsZero():
		return "", false
	case carrier:
		away := now.Sub(c.pulled)
		c.pulled = time.Time{}
		return fmt.Sprintf("the carrier is back after %d s; a switch port with spanning tree needs 30 s more", int(away.Seconds())), true
	default:
		c.pulled = now
		return "no carrier: cable pulled, or switch off; the address is kept", false
	}
}

// checkCarrier says what became of the carrier. A link that somebody switched
// off has none, and that is not the cable's doing.
func (g *Guard) checkCarrier(l netlink.Link) {
	if l.Attrs().RawFlags&unix.IFF_UP == 0 {
		return
	}
	news, back := g.cable.update(bootnet.HasCarrier(l), time.Now())
	if news != "" {
		g.log.Warn(news, "link", g.link.String(), "address", g.lease.Address)
	}
	if back {
		select {
		case g.replugged <- struct{}{}:
		default: // it is known already
		}
	}
}
