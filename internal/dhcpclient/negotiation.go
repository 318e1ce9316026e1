package dhcpclient

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
)

// negotiation is one way to an address: DISCOVER, OFFER, REQUEST, ACK (RFC 2131
// section 3.1), with as many servers as answer. It decides only; client sends,
// receives and tells the time, which counts from began.
//
// All its messages are of one transaction, so an answer counts whenever it
// comes. A server that fails stands behind one that has not, and the first that
// offers is asked at once.
type negotiation struct {
	mac  ether.MAC
	xid  dhcpv4.TransactionID
	want netip.Addr // asked for again (option 50); invalid: any
	// accept says which servers count; nil: all.
	accept func(reply) bool
	// pause is the time from one DISCOVER to the next; nil: discoverPause.
	pause func(now time.Duration, asked int) time.Duration
	// watch lets an answer of such a server to somebody else be a reason to ask.
	watch bool
	began time.Duration // uptime
	log   *slog.Logger

	offers    []*candidate
	asking    *candidate // whose address is asked for; nil: offers are waited for
	requests  int        // sent to asking
	discovers int
	due       time.Duration
	rest      time.Duration            // nothing is due before: the last address was declined
	asked     time.Duration            // of the last DISCOVER
	inUse     map[netip.Addr]ether.MAC // addresses that others turned out to have
	reason    error                    // why there is no lease yet
}

// candidate is a server and what it offers.
type candidate struct {
	server netip.Addr
	mac    ether.MAC
	offer  reply
	lease  bootnet.Lease
	fresh  bool // the offer was not taken up yet
	fails  int
	taken  bool          // an offer of its was taken up, so an ACK may come at any time
	asked  time.Duration // of the first REQUEST for the last offer taken up
	said   string        // what was last said of it
}

func newNegotiation(mac ether.MAC, want netip.Addr, log *slog.Logger, began time.Duration) *negotiation {
	return &negotiation{mac: mac, xid: NewTransaction(), want: want, log: log, began: began,
		inUse: make(map[netip.Addr]ether.MAC), reason: errNoAnswer}
}

// discoverPause grows to the pause that keeps a room full of machines from
// drowning a server. A server may need 3.5 s before it offers (dnsmasq pings the
// address first), or longer; its answer counts all the same.
func discoverPause(_ time.Duration, asked int) time.Duration {
	return min(time.Second<<min(asked, 3), 8*time.Second)
}

// requestPauses are the pauses after each REQUEST for one offer. Where another
// server offers too, patience ends after patientRequests.
func requestPauses() []time.Duration {
	return []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 4 * time.Second}
}

const patientRequests = 2

// next returns the message that is due, if any. n.due says when to ask again.
func (n *negotiation) next(now time.Duration) (q request, ok bool, err error) {
	if now < n.due {
		return request{}, false, nil
	}
	if n.asking != nil && n.spent() {
		n.failSilent()
	}
	if c := n.best(); n.asking == nil && c != nil {
		n.asking, n.requests = c, 0
		c.fresh, c.taken, c.asked = false, true, now
	}
	if n.asking != nil {
		q, err = newRequest(n.mac, n.xid, n.asking.offer)
		n.due = now + Jitter(requestPauses()[n.requests])
		n.requests++
	} else {
		q, err = newDiscover(n.mac, n.xid, n.want)
		pause := n.pause
		if pause == nil {
			pause = discoverPause
		}
		n.due = now + Jitter(pause(now, n.discovers))
		n.discovers++
		n.asked = now
	}
	if err != nil {
		return request{}, false, err
	}
	// Servers that leave the first seconds to others go by it (RFC 2131 table 5).
	q.message.NumSeconds = uint16(min(now/time.Second, 0xffff))
	return q, true, nil
}

// spent reports whether the server that is asked had its time.
func (n *negotiation) spent() bool {
	if n.requests >= len(requestPauses()) {
		return true
	}
	other := n.best()
	return n.requests >= patientRequests && other != nil && other.fails <= n.asking.fails
}

// best returns the offer to take up next, nil if there is none.
func (n *negotiation) best() (best *candidate) {
	for _, c := range n.offers {
		if c.fresh && (best == nil || c.fails < best.fails) {
			best = c
		}
	}
	return best
}

// hear takes an answer of this transaction; given is true when it is an ACK, and
// lease then what it gives.
func (n *negotiation) hear(r reply, now time.Duration) (lease bootnet.Lease, given bool) {
	switch r.message.MessageType() {
	case dhcpv4.MessageTypeOffer:
		n.hearOffer(r, now)
	case dhcpv4.MessageTypeAck:
		return n.hearACK(r, now)
	case dhcpv4.MessageTypeNak:
		if n.asking == nil || n.asking.server != r.server() {
			break // another server tells us that its network is not that one
		}
		err := ErrRefused
		if text := r.message.Message(); text != "" {
			err = fmt.Errorf("%w: %q", ErrRefused, text)
		}
		n.want = netip.Addr{}
		n.fail(n.asking, err)
		n.pauseAfter(now)
	}
	return bootnet.Lease{}, false
}

// overhearPause is the least time between two DISCOVERs that answers to others
// are the reason for.
const overhearPause = 2 * time.Second

// overhear takes an answer to another machine.
func (n *negotiation) overhear(r reply, now time.Duration) (changed bool) {
	due := max(now, n.asked+overhearPause)
	if !n.watch || n.asking != nil || due >= n.due || n.accept != nil && !n.accept(r) {
		return false
	}
	n.due = due
	return true
}

// secondChance is how long others have to offer before a server that failed is
// asked again.
const secondChance = 500 * time.Millisecond

func (n *negotiation) hearOffer(r reply, now time.Duration) {
	if n.accept != nil && !n.accept(r) {
		return
	}
	lease, err := leaseFrom(r, 0)
	if errors.Is(err, errNoAddress) {
		n.log.Debug("DHCP offer passed over", "why", err)
		return
	}
	c := n.candidate(r)
	if c == nil || c == n.asking {
		return
	}
	if by, used := n.inUse[bootnet.Addr(r.message.YourIPAddr)]; err == nil && used {
		err = fmt.Errorf("it offers %s again, which %s uses", lease.Address.Addr(), by)
	}
	if err != nil {
		n.say(c, err)
		return
	}
	c.offer, c.lease, c.fresh = r, lease, true
	switch {
	case n.asking != nil:
	case c.fails == 0:
		n.due = max(now, n.rest)
	default: // a better one may offer too
		n.due = max(min(n.due, now+secondChance), n.rest)
	}
}

func (n *negotiation) hearACK(r reply, now time.Duration) (bootnet.Lease, bool) {
	c := n.requested(r.server())
	if c == nil {
		return bootnet.Lease{}, false
	}
	lease, err := leaseFrom(r, n.began+c.asked) // a lease counts from the moment it was asked for
	if _, used := n.inUse[lease.Address.Addr()]; err == nil && used {
		return bootnet.Lease{}, false // it was declined meanwhile
	}
	if err != nil {
		n.fail(c, err)
		n.pauseAfter(now)
		return bootnet.Lease{}, false
	}
	return lease, true
}

// declinePauses are the pauses after an address that another machine turned out
// to have. RFC 2131 section 3.1 wants ten seconds, so that a server gone mad is
// not asked for ever; a boot goes on at once as long as that is no loop.
const (
	declinePause   = time.Second
	declineLoop    = 3
	declineLoopEnd = 10 * time.Second

	maxInUse = 256 // bounds what a server gone mad can make us remember
)

// decline is told that another machine has the address of a lease that was
// given, and returns the message that says so to the server.
func (n *negotiation) decline(lease bootnet.Lease, by ether.MAC, now time.Duration) (request, error) {
	if len(n.inUse) >= maxInUse {
		clear(n.inUse)
	}
	n.inUse[lease.Address.Addr()] = by
	n.want = netip.Addr{}
	c := n.requested(lease.Server)
	n.say(c, fmt.Errorf("it gives %s, which %s uses; declined", lease.Address.Addr(), by))
	if n.asking == c {
		n.asking = nil
	}
	n.discovers = 0
	n.rest = now + declinePause
	if len(n.inUse) > declineLoop {
		n.rest = now + declineLoopEnd
	}
	n.due = n.rest
	return newDecline(n.mac, n.xid, lease)
}

// maxClaims is how many addresses that servers gave us one machine may claim. One
// that claims more wants to keep us out, or stands for others.
const maxClaims = 5

// unbelievable reports whether a machine claims too much, and if so forgets what
// it claimed.
func (n *negotiation) unbelievable(by ether.MAC) bool {
	claims := 0
	for _, mac := range n.inUse {
		if mac == by {
			claims++
		}
	}
	if claims < maxClaims {
		return false
	}
	maps.DeleteFunc(n.inUse, func(_ netip.Addr, mac ether.MAC) bool { return mac == by })
	return true
}

// candidate returns what is known of the server that sent r, nil when there are
// too many of them.
func (n *negotiation) candidate(r reply) *candidate {
	for _, c := range n.offers {
		if c.server == r.server() && c.mac == r.from {
			return c
		}
	}
	if len(n.offers) >= maxOffers {
		return nil
	}
	c := &candidate{server: r.server(), mac: r.from}
	n.offers = append(n.offers, c)
	return c
}

// requested returns the candidate with that identifier of which an offer was taken
// up, nil if there is none.
func (n *negotiation) requested(server netip.Addr) *candidate {
	i := slices.IndexFunc(n.offers, func(c *candidate) bool { return c.server == server && c.taken })
	if n.asking != nil && n.asking.server == server {
		return n.asking
	}
	if i < 0 {
		return nil
	}
	return n.offers[i]
}

// fail puts a server behind those that have not failed.
func (n *negotiation) fail(c *candidate, why error) {
	c.fails++
	n.say(c, why)
	if n.asking == c {
		n.asking = nil
	}
}

// failSilent is for the server that is asked and does not answer.
func (n *negotiation) failSilent() {
	n.fail(n.asking, fmt.Errorf("it offers %s and does not give it: %w", n.asking.lease.Address.Addr(), errNoAnswer))
}

// end returns why there is no lease, when there is no more time.
func (n *negotiation) end() error {
	if n.asking != nil && n.requests > patientRequests { // it had time
		n.failSilent()
	}
	return n.reason
}

// soonRetries is how often a server may fail before it is asked less and less.
const soonRetries = 3

// pauseAfter says when to go on after a failure: at once with another server,
// else after a second, and later the more often that happened.
func (n *negotiation) pauseAfter(now time.Duration) {
	n.due = now
	if n.best() != nil {
		return
	}
	wait := time.Second
	for _, c := range n.offers {
		wait = max(wait, time.Duration(c.fails-soonRetries)*time.Second)
	}
	n.due += Jitter(min(wait, 8*time.Second))
}

// say names a server that gives nothing, once for each thing it does.
func (n *negotiation) say(c *candidate, why error) {
	n.reason = fmt.Errorf("DHCP server %s (%s): %w", c.server, c.mac, why)
	if c.said != why.Error() {
		c.said = why.Error()
		n.log.Warn("a DHCP server gives no address", "server", c.server, "mac", c.mac, "why", why)
	}
}
