package bootnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/vishvananda/netlink"

	"viver.lan/internal/packet"
)

// ethernetMTU is what every Ethernet carries, in bytes (IEEE 802.3).
const ethernetMTU = 1500

// ApplyMTU gives the link the MTU of the lease, and leaves in the lease the one
// that holds. One above Ethernet's is tried out first: where the switch or the
// other end does not carry it large packets would vanish, and the root disk with
// them.
func ApplyMTU(ctx context.Context, card Card, lease *Lease, log *slog.Logger) {
	if lease.MTU == 0 {
		return
	}
	if err := setMTU(card, lease.MTU); err != nil {
		log.Warn("the card does not carry the MTU it was told", "link", card.Name, "mtu", lease.MTU, "error", err)
		lease.MTU = 0
		return
	}
	if lease.MTU <= ethernetMTU {
		return
	}
	if err := passesMTU(ctx, card, *lease); err != nil {
		log.Warn("an MTU above Ethernet's does not hold on this network; going on with the usual one", "link", card.Name, "told", lease.MTU, "mtu", ethernetMTU, "error", err)
		lease.MTU = ethernetMTU
		if err := setMTU(card, ethernetMTU); err != nil {
			log.Warn("MTU not set", "link", card.Name, "mtu", ethernetMTU, "error", err)
		}
	}
}

func setMTU(card Card, mtu int) error {
	l, err := netlink.LinkByIndex(card.Index)
	if err != nil {
		return fmt.Errorf("find link %d: %w", card.Index, err)
	}
	if l.Attrs().MTU == mtu {
		return nil // some cards lose their carrier for seconds when it is set
	}
	return netlink.LinkSetMTU(l, mtu)
}

// How long a neighbour is asked in large frames. Three rounds in which it
// answers small ones alone decide; a card that restarts for a new MTU has
// unheardWait to come back.
const (
	mtuRound    = 200 * time.Millisecond
	mtuRounds   = 3
	unheardWait = 5 * time.Second
)

// passesMTU returns nil when a neighbour answers frames of the lease's MTU. They
// are ARP requests with padding, which cost one round trip, need nobody's echo
// service and pass no router. Small ones tell a neighbour that is not there from
// a network that drops the large.
func passesMTU(ctx context.Context, card Card, lease Lease) error {
	neighbours := lease.neighbours()
	if len(neighbours) == 0 {
		return errors.New("no neighbour is known that could be asked")
	}
	s, err := packet.Open(card.Index, packet.EtherTypeARP, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	us := lease.Address.Addr()
	small := 0
	for began := time.Now(); small < mtuRounds && time.Since(began) < unheardWait; {
		for _, ip := range neighbours {
			// The answer names whoever asked: nobody in the large frame.
			large := packet.ARPProbe(ip, card.MAC).Marshal()
			ask := packet.ARPAnnouncement(us, card.MAC)
			ask.TargetIP = ip
			_ = s.Send(append(large, bytes.Repeat([]byte{0}, lease.MTU-packet.ARPSize)...)) // a queue that is full: the next may pass
			_ = s.Send(ask.Marshal())
		}
		answered := false
		err := s.ReceiveUntil(ctx, time.Now().Add(mtuRound), func(frame []byte) bool {
			p, err := packet.ParseARP(frame)
			if err != nil || p.Op != packet.ARPReply || p.TargetMAC != card.MAC {
				return false
			}
			answered = answered || p.TargetIP == us
			return p.TargetIP.IsUnspecified()
		})
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if answered {
			small++
		}
	}
	if small == 0 {
		return fmt.Errorf("no answer of %v", neighbours)
	}
	return fmt.Errorf("%v answered small frames only", neighbours)
}
