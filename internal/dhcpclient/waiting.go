package dhcpclient

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/sleep"
)

// errPulled ends what was asked on a link that lost its carrier meanwhile.
var errPulled = errors.New("the link lost its carrier")

// treeDelay is how long a switch port with spanning tree forwards nothing after
// link-up: twice the forward delay, which is 15 s unless somebody changed it
// (IEEE 802.1D-2004, table 17-1).
const treeDelay = 30 * time.Second

// When whoever waits for an address is told why: not at once, for most get
// theirs within seconds, then again and again.
const (
	carrierPoll = 100 * time.Millisecond // between two looks whether the carrier is still there
	firstWord   = 5 * time.Second
	wordEvery   = 10 * time.Second
)

// watchCarrier tells people what is waited for on a link that has a carrier,
// until ctx ends; it returns errPulled when the carrier, or the link, goes.
func (c *client) watchCarrier(ctx context.Context) error {
	began, word := time.Now(), firstWord
	for {
		if err := sleep.For(ctx, carrierPoll); err != nil {
			return err
		}
		if l, err := netlink.LinkByIndex(c.link.Index); err != nil || !bootnet.HasCarrier(l) {
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
