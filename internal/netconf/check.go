package netconf

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"viver.lan/internal/ether"
)

// Whether an address is free is asked before it is used (RFC 2131 section 4.4.1,
// RFC 5227 section 2.1). RFC 5227 takes four to seven seconds for that: a random
// pause, three probes one to two seconds apart, two seconds of silence. A boot
// cannot wait so long, so it asks in a short form, while the DHCP server works
// on the answer, and the guard looks out for conflicts for as long as the
// machine runs. Somebody who has the address answers within 50 ms on a LAN.
const (
	arpProbes     = 3
	arpProbePause = 200 * time.Millisecond
	// leaseProbePause is the same for an address that a server gives, which
	// most servers have probed themselves: 0.15 s from the offer on.
	leaseProbePause = 40 * time.Millisecond
)

// InUse asks the link whether another machine uses ip; it returns that
// machine's MAC. It takes 0.6 s when nobody does. One that only asks the same is
// passed over: several boot hosts ask, at one time, for one new machine. So is
// one that answers for every address.
func InUse(ctx context.Context, link Link, ip netip.Addr) (by ether.MAC, used bool, err error) {
	q := arpQuestion{link: link, pause: arpProbePause, has: arpPacket.conflicts}
	return q.owner(ctx, netip.PrefixFrom(ip, answeringBits))
}

// answeringBits is the length of the prefix around an address of an unknown
// network in which nobody has all addresses.
const answeringBits = 24

// arpQuestion is how a link is asked who has an address.
type arpQuestion struct {
	link  Link
	pause time.Duration // after each of arpProbes
	// has decides what says that the sender has ip.
	has func(p arpPacket, ip netip.Addr, us ether.MAC) bool
	// passed are machines whose word does not count.
	passed []ether.MAC
	log    *slog.Logger // nil: nothing is said
}

// maxPassed bounds how many machines are not believed at one time.
const maxPassed = 64

// owner returns who has an address, which comes with the prefix of its network.
// A router or switch that answers for every address (proxy ARP) says nothing by
// it, so it is passed over, and what the others say counts.
func (q *arpQuestion) owner(ctx context.Context, address netip.Prefix) (by ether.MAC, used bool, err error) {
	for {
		by, used, err = q.ask(ctx, address.Addr())
		if err != nil || !used || len(q.passed) >= maxPassed {
			return by, used, err
		}
		all, err := q.answersAll(ctx, address, by)
		if err != nil || !all {
			return by, true, err
		}
		q.passed = append(q.passed, by)
		if q.log != nil {
			q.log.Warn("a machine answers ARP for every address, so it is not believed (proxy ARP on a router, or a switch that answers for others; switch it off there, or addresses in use are not noticed)",
				"link", q.link.Name, "mac", by)
		}
	}
}

// ask asks until an answer, or anything else that is said, means that the
// sender has ip.
func (q *arpQuestion) ask(ctx context.Context, ip netip.Addr) (by ether.MAC, used bool, err error) {
	s, err := openPacketSocket(q.link.Index, etherTypeARP, nil)
	if err != nil {
		return ether.MAC{}, false, err
	}
	defer s.close()
	for range arpProbes {
		if err := s.send(probeFor(ip, q.link.MAC).marshal()); err != nil {
			return ether.MAC{}, false, err
		}
		err := s.receiveUntil(ctx, time.Now().Add(q.pause), func(frame []byte) bool {
			p, err := parseARP(frame)
			if err != nil || slices.Contains(q.passed, p.senderMAC) || !q.has(p, ip, q.link.MAC) {
				return false
			}
			by = p.senderMAC
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

// answersAll reports whether a machine claims addresses of a network that were
// picked at random, so that it cannot have them all.
func (q *arpQuestion) answersAll(ctx context.Context, address netip.Prefix, by ether.MAC) (bool, error) {
	const picks = 3
	claimed := map[netip.Addr]bool{}
	for range picks {
		if ip, ok := pickFrom(address); ok {
			claimed[ip] = false
		}
	}
	if len(claimed) < picks {
		return false, nil // the network is so small that somebody may have it all
	}
	s, err := openPacketSocket(q.link.Index, etherTypeARP, nil)
	if err != nil {
		return false, err
	}
	defer s.close()
	for ip := range claimed {
		if err := s.send(probeFor(ip, q.link.MAC).marshal()); err != nil {
			return false, err
		}
	}
	missing := picks
	err = s.receiveUntil(ctx, time.Now().Add(arpProbePause), func(frame []byte) bool {
		p, err := parseARP(frame)
		if said, asked := claimed[p.senderIP]; err == nil && asked && !said && p.senderMAC == by {
			claimed[p.senderIP] = true
			missing--
		}
		return missing == 0
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	return err == nil, err
}

// pickFrom picks another address of a network at random; ok is false when it hit
// one that no machine can have.
func pickFrom(address netip.Prefix) (ip netip.Addr, ok bool) {
	b := address.Masked().Addr().As4()
	host := rand.Uint32() >> min(address.Bits(), 31) // the bits below the prefix
	for i := range b {
		b[i] |= byte(host >> (24 - 8*i))
	}
	ip = netip.AddrFrom4(b)
	return ip, ip != address.Addr() && ip != address.Masked().Addr()
}

// checks asks who has the addresses that servers offer, one after the other,
// while something else goes on.
type checks struct {
	ctx     context.Context
	cancel  context.CancelFunc
	link    Link
	held    netip.Addr // is ours already; not asked for
	log     *slog.Logger
	running sync.WaitGroup
	passed  []ether.MAC // are not believed
	asked   netip.Prefix
	answer  chan addressOwner
}

// addressOwner is another machine that has an address.
type addressOwner struct {
	mac  ether.MAC
	used bool
}

func newChecks(ctx context.Context, link Link, held netip.Addr, log *slog.Logger) *checks {
	ctx, cancel := context.WithCancel(ctx)
	return &checks{ctx: ctx, cancel: cancel, link: link, held: held, log: log}
}

// begin asks for an address, unless it is asked for already.
func (c *checks) begin(address netip.Prefix) {
	if address == c.asked {
		return
	}
	c.asked = address
	answer := make(chan addressOwner, 1)
	c.answer = answer
	passed := slices.Clone(c.passed)
	c.running.Go(func() { answer <- c.ask(address, passed) })
}

// pass believes a machine no more.
func (c *checks) pass(mac ether.MAC) {
	c.passed = append(c.passed, mac)
	c.asked = netip.Prefix{}
}

// result waits for the answer about an address.
func (c *checks) result(address netip.Prefix) (by ether.MAC, used bool) {
	c.begin(address)
	owner := <-c.answer
	c.answer <- owner // it may be asked for again
	return owner.mac, owner.used
}

// ask asks who has an address. An address that cannot be asked for is taken:
// servers probe too, and a boot must not end here.
func (c *checks) ask(address netip.Prefix, passed []ether.MAC) addressOwner {
	if address.Addr() == c.held {
		return addressOwner{}
	}
	q := arpQuestion{link: c.link, pause: leaseProbePause, has: arpPacket.conflicts, passed: append(passed, ownMACs()...), log: c.log}
	by, used, err := q.owner(c.ctx, address)
	if err != nil && c.ctx.Err() == nil {
		c.log.Warn("nobody was asked whether the address is in use", "link", c.link.Name, "address", address, "error", err)
	}
	return addressOwner{by, used && err == nil}
}

// end waits until nothing is asked any more.
func (c *checks) end() {
	c.cancel()
	c.running.Wait()
}

// ownMACs are the addresses of our cards: one that hangs on the same network
// answers for the whole machine.
func ownMACs() (own []ether.MAC) {
	links, err := Links()
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
func Announce(link Link, ip netip.Addr) error {
	s, err := openPacketSocket(link.Index, etherTypeARP, nil)
	if err != nil {
		return err
	}
	defer s.close()
	return s.send(announcementOf(ip, link.MAC).marshal())
}
