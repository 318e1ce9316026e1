package netguard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/time/rate"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
	"viver.lan/internal/packet"
	"viver.lan/internal/sleep"
)

// Another machine may use our address too: somebody typed it in, or a boot host
// gave it away in the other half of a network that was divided. RFC 5227,
// section 2.4 (c), is for machines that cannot give theirs up: they defend it.

// defendEvery is the least pause between two announcements, so that two machines
// that both defend one address leave the link to others (DEFEND_INTERVAL).
const defendEvery = 10 * time.Second

// defence limits how often something is done about a conflict, and logged.
type defence struct{ act, warn, warnUndecided rate.Sometimes }

func newDefence() defence {
	return defence{act: rate.Sometimes{Interval: defendEvery}, warn: rate.Sometimes{Interval: time.Minute}, warnUndecided: rate.Sometimes{Interval: time.Minute}}
}

// defend defends the address until ctx ends.
func (g *Guard) defend(ctx context.Context) {
	logged := rate.Sometimes{First: 3, Interval: time.Minute}
	for ctx.Err() == nil {
		link, address := g.addressHolder()
		err := g.defendOn(ctx, link, address)
		if err != nil && ctx.Err() == nil {
			logged.Do(func() { g.log.Warn("the address is not defended", "link", link.Name, "error", err) })
			_ = sleep.For(ctx, time.Second) // the loop checks ctx
		}
	}
}

// defendOn defends an address until the machine has another, or another link.
func (g *Guard) defendOn(ctx context.Context, link bootnet.Card, address netip.Addr) error {
	s, err := packet.Open(link.Index, packet.EtherTypeARP, packet.ARPFrom(address))
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		var by ether.MAC
		err := s.ReceiveUntil(ctx, time.Now().Add(checkEvery), func(frame []byte) bool {
			p, err := packet.ParseARP(frame)
			by = p.SenderMAC
			return err == nil && p.Conflicts(address, link.MAC)
		})
		if l, a := g.addressHolder(); l.Index != link.Index || a != address {
			return nil
		}
		if err == nil {
			err = g.answerConflict(s, link, address, by)
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// answerConflict answers a machine that uses our address.
func (g *Guard) answerConflict(s *packet.Socket, link bootnet.Card, address netip.Addr, by ether.MAC) (err error) {
	if ours, err := isOwnMAC(by); err != nil || ours {
		return err
	}
	d := &g.defence
	d.warn.Do(func() {
		g.log.Warn("another machine uses our address; it is kept and defended", "address", address, "by", by, "link", link.Name)
	})
	d.act.Do(func() {
		err = s.Send(packet.ARPAnnouncement(address, link.MAC).Marshal())
		g.conflicts.Send()
	})
	return err
}

// isOwnMAC reports whether a device of this machine has a MAC address: each on the
// same network speaks for the whole machine.
func isOwnMAC(mac ether.MAC) (bool, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return false, fmt.Errorf("list network links: %w", err)
	}
	for _, l := range links {
		if slices.Equal(l.Attrs().HardwareAddr, mac[:]) || ownMAC(l) == mac {
			return true, nil
		}
	}
	return false, nil
}
