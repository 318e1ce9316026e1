package netconf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"viver.lan/internal/dhcp"
	"viver.lan/internal/klog"
)

// An ARP probe (RFC 5227 section 2.1.1) in the short form that fits a boot:
// the link has been up for the six seconds of the DHCP probe by then. Somebody
// who has the address answers within 50 ms on a LAN.
const (
	arpProbes     = 3
	arpProbePause = 200 * time.Millisecond
	maxCandidates = 32
)

// InUse asks the link whether another machine uses ip; it returns that
// machine's MAC. It takes 0.6 s when nobody does. One that only asks the same is
// passed over: several boot hosts ask, at one time, for one new machine.
func InUse(ctx context.Context, link Link, ip netip.Addr) (by MAC, used bool, err error) {
	return whoHas(ctx, link, ip, arpPacket.conflicts)
}

// whoHas asks the link until an answer, or anything else that is said, means
// that the sender has ip.
func whoHas(ctx context.Context, link Link, ip netip.Addr, has func(p arpPacket, ip netip.Addr, us MAC) bool) (by MAC, used bool, err error) {
	s, err := openPacketSocket(link.Index, etherTypeARP, nil)
	if err != nil {
		return MAC{}, false, err
	}
	defer s.close()
	for range arpProbes {
		if err := s.send(probeFor(ip, link.MAC).marshal()); err != nil {
			return MAC{}, false, err
		}
		err := s.receiveUntil(ctx, time.Now().Add(arpProbePause), func(frame []byte) bool {
			p, err := parseARP(frame)
			if err != nil || !has(p, ip, link.MAC) {
				return false
			}
			by = p.senderMAC
			return true
		})
		if err == nil {
			return by, true, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return MAC{}, false, err
		}
	}
	return MAC{}, false, nil
}

// Announce tells the link that we have ip, so that neighbours forget another
// owner.
func Announce(link Link, ip netip.Addr) error {
	s, err := openPacketSocket(link.Index, etherTypeARP, nil)
	if err != nil {
		return err
	}
	defer s.close()
	return s.send(announcementOf(ip, link.MAC).marshal())
}

// ChooseAddress takes an address for the first node of an empty network: the
// first of the machine's candidates that nobody else on the link uses. Those are
// the addresses that a boot host would give it, so a machine keeps its address
// when it boots from another one's medium next time.
func ChooseAddress(ctx context.Context, link Link, pool netip.Prefix, log *slog.Logger) (Lease, error) {
	if err := dhcp.ValidatePool(pool, pool); err != nil {
		return Lease{}, fmt.Errorf("choose an address on %s: %w", link.Name, err)
	}
	for n := range maxCandidates {
		ip := dhcp.Candidate(pool, link.MAC, n)
		by, used, err := whoHas(ctx, link, ip, arpPacket.takes) // it may be chosen by two at once
		if err != nil {
			return Lease{}, fmt.Errorf("choose an address on %s: %w", link.Name, err)
		}
		if used {
			log.Info("address is taken, trying another", "link", link.Name, "address", ip, "by", by)
			continue
		}
		return selfAssigned(ip, pool), nil
	}
	return Lease{}, fmt.Errorf("choose an address on %s: %d addresses of %s tried, all taken", link.Name, maxCandidates, pool)
}

func selfAssigned(ip netip.Addr, pool netip.Prefix) Lease {
	return Lease{Source: SourceSelf, Address: netip.PrefixFrom(ip, pool.Bits()), BootHost: ip, Obtained: klog.Uptime()}
}
