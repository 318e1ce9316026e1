package bootnet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"viver.lan/internal/ether"
	"viver.lan/internal/sleep"
)

// Card is an Ethernet card. Index names it for good; Name may be changed by
// the distribution's udev.
type Card struct {
	Index  int       `json:"index"`
	Name   string    `json:"name"`
	MAC    ether.MAC `json:"mac"`
	Driver string    `json:"driver,omitempty"` // kernel module, "" when the kernel does not say
}

// String names the card for people.
func (c Card) String() string {
	if c.Driver == "" {
		return fmt.Sprintf("%s (%s)", c.Name, c.MAC)
	}
	return fmt.Sprintf("%s (%s, %s)", c.Name, c.Driver, c.MAC)
}

const sysClassNet = "/sys/class/net"

// Cards returns the wired Ethernet cards, in the kernel's order.
func Cards() ([]Card, error) {
	found, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list network links: %w", err)
	}
	var cards []Card
	for _, l := range found {
		if IsCard(l) && !isWireless(l.Attrs().Name) {
			cards = append(cards, CardFrom(l))
		}
	}
	slices.SortFunc(cards, func(a, b Card) int { return a.Index - b.Index })
	return cards, nil
}

// IsCard reports whether a machine can boot from the link: a card, or the
// veth that a container has in place of one, but nothing made of other links.
func IsCard(l netlink.Link) bool {
	a := l.Attrs()
	kind := l.Type()
	return a.EncapType == "ether" && a.RawFlags&unix.IFF_LOOPBACK == 0 &&
		len(a.HardwareAddr) == 6 && (kind == "device" || kind == "veth")
}

// isWireless reports whether the link needs more than a cable.
func isWireless(name string) bool {
	_, err := os.Stat(filepath.Join(sysClassNet, name, "phy80211"))
	return err == nil
}

// CardFrom is the card that package netlink describes.
func CardFrom(l netlink.Link) Card {
	a := l.Attrs()
	card := Card{Index: a.Index, Name: a.Name}
	if len(a.HardwareAddr) == 6 {
		card.MAC = ether.MAC(a.HardwareAddr)
	}
	if driver, err := os.Readlink(filepath.Join(sysClassNet, a.Name, "device", "driver")); err == nil {
		card.Driver = filepath.Base(driver)
	}
	return card
}

// LinkUp switches a link on.
func LinkUp(index int) error {
	if err := netlink.LinkSetUp(Device(index)); err != nil {
		return fmt.Errorf("switch on link %d: %w", index, err)
	}
	return nil
}

// LoopbackUp switches the loopback link on, which gives it 127.0.0.1.
func LoopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback link: %w", err)
	}
	return LinkUp(lo.Attrs().Index)
}

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
		if err := sleep.For(ctx, PollEvery); err != nil {
			return fmt.Errorf("%s: no carrier: is the cable plugged in, is the switch on?", CardFrom(l))
		}
	}
}

// PollEvery is how often the kernel is asked for cards and carriers that are waited for.
const PollEvery = 100 * time.Millisecond
