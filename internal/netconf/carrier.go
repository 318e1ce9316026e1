package netconf

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"viver.lan/internal/sleep"
)

// errNoCarrier is what a machine without a cable ends with.
var errNoCarrier = errors.New("no carrier: is the cable plugged in, is the switch on?")

// errPulled ends what was asked on a link that lost its carrier meanwhile.
var errPulled = errors.New("the link lost its carrier")

// treeDelay is how long a switch port with spanning tree forwards nothing after
// link-up: twice the forward delay, which is 15 s unless somebody changed it
// (IEEE 802.1D-2004, table 17-1).
const treeDelay = 30 * time.Second

func hasCarrier(l netlink.Link) bool { return l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0 }

// WaitCarrier waits until the link, which must be up, has a carrier. When ctx
// ends first the error says so in words for people.
func WaitCarrier(ctx context.Context, index int) error {
	for {
		l, err := netlink.LinkByIndex(index)
		if err != nil {
			return fmt.Errorf("wait for the carrier of link %d: %w", index, err)
		}
		if hasCarrier(l) {
			return nil
		}
		if err := sleep.For(ctx, pollEvery); err != nil {
			return fmt.Errorf("%s: %w", linkFrom(l), errNoCarrier)
		}
	}
}

// When whoever waits for an address is told why: not at once, for most get
// theirs within seconds, then again and again.
const (
	firstWord = 5 * time.Second
	wordEvery = 10 * time.Second
)

// watchCarrier tells people what is waited for on a link that has a carrier,
// until ctx ends; it returns errPulled when the carrier, or the link, goes.
func (c *client) watchCarrier(ctx context.Context) error {
	began, word := time.Now(), firstWord
	for {
		if err := sleep.For(ctx, pollEvery); err != nil {
			return err
		}
		if l, err := netlink.LinkByIndex(c.link.Index); err != nil || !hasCarrier(l) {
			return errPulled
		}
		if up := time.Since(began); up >= word {
			c.log.Info(noAnswerYet(c.link.Name, up))
			word += wordEvery
		}
	}
}

// noAnswerYet is for people who look at a machine that gets no address.
func noAnswerYet(link string, up time.Duration) string {
	why := "a switch port with spanning tree needs 30 s"
	if up > treeDelay+firstWord {
		why = "is a DHCP server or a VIVER boot host on this network?"
	}
	return fmt.Sprintf("link up on %s since %d s, no answer yet; %s", link, int(up.Seconds()), why)
}

// cable is what was last seen of a link's carrier.
type cable struct {
	pulled time.Time // zero: plugged in
}

// look returns what is to be said of the carrier, "" when it is as it was, and
// whether it is back.
func (c *cable) look(carrier bool, now time.Time) (news string, back bool) {
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

// lookAtCable says what became of the carrier. A link that somebody switched
// off has none, and that is not the cable's doing.
func (g *Guard) lookAtCable(l netlink.Link) {
	if l.Attrs().RawFlags&unix.IFF_UP == 0 {
		return
	}
	news, back := g.cable.look(hasCarrier(l), time.Now())
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
