package bootnet

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

// HasCarrier reports whether a cable with a live far end is plugged in; the kernel sees
// one only while the link is switched on.
func HasCarrier(l netlink.Link) bool { return l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0 }

// WaitCarrier waits until the link, which must be up, has a carrier. When ctx
// ends first the error says so in words for people.
func WaitCarrier(ctx context.Context, index int) error {
	for {
		l, err := netlink.LinkByIndex(index)
		if err != nil {
			return fmt.Errorf("wait for the carrier of link %d: %w", index, err)
		}
		if HasCarrier(l) {
			return nil
		}
		if err := sleep.For(ctx, pollEvery); err != nil {
			return fmt.Errorf("%s: %w", LinkFrom(l), errNoCarrier)
		}
	}
}

// pollEvery is how often we look whether a carrier has arrived.
const pollEvery = 100 * time.Millisecond
