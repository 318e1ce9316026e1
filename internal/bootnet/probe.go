package bootnet

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"time"

	"viver.lan/internal/ether"
	"viver.lan/internal/packet"
)

// An address is probed for before it is used (RFC 2131 section 4.4.1, RFC 5227 section
// 2.1). RFC 5227 takes four to seven seconds for that: a random pause, three probes one
// to two seconds apart, two seconds of silence. A boot cannot wait so long, so it probes
// in a short form, while the DHCP server works on the answer, and package netguard
// detects conflicts for as long as the machine runs. A machine that has the address
// answers within 50 ms on a LAN.
const (
	probes     = 3
	probePause = 200 * time.Millisecond
	// givenProbePause is the same for an address that is given to another machine, whose
	// firmware does nothing else meanwhile: 0.24 s. Other DHCP servers take a second for
	// it, or do without.
	givenProbePause = 80 * time.Millisecond
	// leaseProbePause is the same for an address that a server gives, which
	// most servers have probed themselves: 0.15 s from the offer on.
	leaseProbePause = 40 * time.Millisecond
)

// InUse probes for an address that is to be given to another machine, and returns
// the MAC of the machine that uses it. It takes 0.24 s when nobody does. One that only
// probes for the same does not count: several boot hosts probe, at one time, for one
// new machine. Nor does one that answers for every address.
func InUse(ctx context.Context, card Card, ip netip.Addr) (by ether.MAC, used bool, err error) {
	p := Prober{card: card, pause: givenProbePause, conflicts: packet.ARP.Conflicts}
	return p.Owner(ctx, netip.PrefixFrom(ip, answeringBits))
}

// answeringBits is the length of the prefix around an address of an unknown
// network in which nobody has all addresses.
const answeringBits = 24

// NewProber returns a prober for a machine that chooses an address by itself: another
// that probes for the same one (RFC 5227 section 2.1.1) counts as its owner.
func NewProber(card Card, log *slog.Logger) *Prober {
	return &Prober{card: card, pause: probePause, conflicts: packet.ARP.ConflictsWhileProbing, log: log}
}

// NewLeaseProber returns a prober for an address that a server gives: Owner takes
// 0.12 s when nobody has it. Our own cards do not count, because one on the same
// network answers for the whole machine; nor do the ignored machines.
func NewLeaseProber(card Card, ignored []ether.MAC, log *slog.Logger) *Prober {
	return &Prober{card: card, pause: leaseProbePause, conflicts: packet.ARP.Conflicts, ignored: append(ownMACs(), ignored...), log: log}
}

// Prober finds out by ARP who has an address on a link.
type Prober struct {
	card  Card
	pause time.Duration // after each of probes
	// conflicts reports whether a packet says that its sender has ip.
	conflicts func(a packet.ARP, ip netip.Addr, us ether.MAC) bool
	// ignored are machines whose answers do not count.
	ignored []ether.MAC
	log     *slog.Logger // may be nil
}

// maxIgnored bounds how many machines are ignored at one time.
const maxIgnored = 64

// Owner returns the machine that has an address, which comes with the prefix of its
// network. A router or switch that answers for every address (proxy ARP) proves nothing by
// it, so its answers are ignored, and those of others count.
func (p *Prober) Owner(ctx context.Context, address netip.Prefix) (by ether.MAC, used bool, err error) {
	for {
		by, used, err = p.probe(ctx, address.Addr())
		if err != nil || !used || len(p.ignored) >= maxIgnored {
			return by, used, err
		}
		all, err := p.answersForAll(ctx, address, by)
		if err != nil || !all {
			return by, true, err
		}
		p.ignored = append(p.ignored, by)
		if p.log != nil {
			p.log.Warn("a machine answers ARP for every address, so its answers do not count (proxy ARP on a router, or a switch that answers for others; switch it off there, or addresses in use are not noticed)",
				"link", p.card.Name, "mac", by)
		}
	}
}

// probe asks until an answer, or another ARP packet, means that its sender has ip.
func (p *Prober) probe(ctx context.Context, ip netip.Addr) (by ether.MAC, used bool, err error) {
	s, err := packet.Open(p.card.Index, packet.EtherTypeARP, nil)
	if err != nil {
		return ether.MAC{}, false, err
	}
	defer s.Close()
	for range probes {
		if err := s.Send(packet.ARPProbe(ip, p.card.MAC).Marshal()); err != nil {
			return ether.MAC{}, false, err
		}
		err := s.ReceiveUntil(ctx, time.Now().Add(p.pause), func(frame []byte) bool {
			a, err := packet.ParseARP(frame)
			if err != nil || slices.Contains(p.ignored, a.SenderMAC) || !p.conflicts(a, ip, p.card.MAC) {
				return false
			}
			by = a.SenderMAC
			return true
		})
		if err == nil {
			return by, true, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return ether.MAC{}, false, err
		}
	}
	return ether.MAC{}, false, nil
}

// answersForAll reports whether a machine claims addresses of a network that were
// picked at random, so that it cannot have them all.
func (p *Prober) answersForAll(ctx context.Context, address netip.Prefix, by ether.MAC) (bool, error) {
	const picks = 3
	claimed := map[netip.Addr]bool{}
	for range picks {
		if ip, ok := randomAddress(address); ok {
			claimed[ip] = false
		}
	}
	if len(claimed) < picks {
		return false, nil // the network is so small that somebody may have it all
	}
	s, err := packet.Open(p.card.Index, packet.EtherTypeARP, nil)
	if err != nil {
		return false, err
	}
	defer s.Close()
	for ip := range claimed {
		if err := s.Send(packet.ARPProbe(ip, p.card.MAC).Marshal()); err != nil {
			return false, err
		}
	}
	missing := picks
	err = s.ReceiveUntil(ctx, time.Now().Add(probePause), func(frame []byte) bool {
		a, err := packet.ParseARP(frame)
		if said, asked := claimed[a.SenderIP]; err == nil && asked && !said && a.SenderMAC == by {
			claimed[a.SenderIP] = true
			missing--
		}
		return missing == 0
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	return err == nil, err
}

// randomAddress picks another address of a network at random; ok is false when it hit
// one that no machine can have.
func randomAddress(address netip.Prefix) (ip netip.Addr, ok bool) {
	b := address.Masked().Addr().As4()
	host := rand.Uint32() >> min(address.Bits(), 31) // the bits below the prefix
	for i := range b {
		b[i] |= byte(host >> (24 - 8*i))
	}
	ip = netip.AddrFrom4(b)
	return ip, ip != address.Addr() && ip != address.Masked().Addr()
}

// ownMACs are the addresses of our cards: one that hangs on the same network
// answers for the whole machine.
func ownMACs() (own []ether.MAC) {
	links, err := Cards()
	if err != nil {
		return nil // the kernel is asked for links all the time; it answers
	}
	for _, l := range links {
		own = append(own, l.MAC)
	}
	return own
}

// Announce tells the link that we have ip, so that neighbours forget another
// owner.
func Announce(card Card, ip netip.Addr) error {
	s, err := packet.Open(card.Index, packet.EtherTypeARP, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Send(packet.ARPAnnouncement(ip, card.MAC).Marshal())
}
