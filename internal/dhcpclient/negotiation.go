package dhcpclient

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
	"viver.lan/internal/sleep"
)

// negotiation is one way to an address: DISCOVER, OFFER, REQUEST, ACK (RFC 2131
// section 3.1), with as many servers as answer. It decides only; client sends,
// receives and tells the time, which counts from began.
//
// All its messages are of one transaction, so an answer counts whenever it comes. The
// first server that offers is asked at once; one that fails ranks below the others.
type negotiation struct {
	mac       ether.MAC
	xid       dhcpv4.TransactionID
	requested netip.Addr // asked for again (option 50); invalid: any
	// accept says which servers count.
	accept func(reply) bool
	// pause is the time from one DISCOVER to the next, when discovers were sent.
	pause func(now time.Duration, discovers int) time.Duration
	// overhears has an answer of such a server to another machine be a reason to ask.
	overhears bool
	began     time.Duration // uptime
	log       *slog.Logger

	offers       []*candidate
	requesting   *candidate // whose address is asked for; nil: offers are waited for
	requests     int        // sent to requesting
	discovers    int
	due          time.Duration
	notBefore    time.Duration // nothing is due before: the last address was declined
	lastDiscover time.Duration
	inUse        map[netip.Addr]ether.MAC // addresses that others turned out to have
	err          error                    // why there is no lease yet
}

// candidate is a server and what it offers.
type candidate struct {
	server      netip.Addr
	mac         ether.MAC
	offer       reply
	lease       bootnet.Lease
	open        bool // the offer was not requested yet
	failures    int
	requested   bool          // an offer of it was, so an ACK may come at any time
	requestedAt time.Duration // time of the first REQUEST for the last such offer
	reported    string        // the last error logged of it
}

func newNegotiation(mac ether.MAC, want netip.Addr, log *slog.Logger, began time.Duration) *negotiation {
	return &negotiation{mac: mac, xid: NewTransaction(), requested: want, log: log, began: began,
		accept: func(reply) bool { return true }, pause: discoverPause,
		inUse: make(map[netip.Addr]ether.MAC), err: errNoAnswer}
}

// discoverPause grows to the pause that keeps a room full of machines from
// drowning a server. A server may need 3.5 s before it offers (dnsmasq pings the
// address first), or longer; its answer counts all the same.
func discoverPause(_ time.Duration, discovers int) time.Duration {
	return min(time.Second<<min(discovers, 3), 8*time.Second)
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
	if n.requesting != nil && n.timedOut() {
		n.failUnanswered()
	}
	if c := n.bestOffer(); n.requesting == nil && c != nil {
		n.requesting, n.requests = c, 0
		c.open, c.requested, c.requestedAt = false, true, now
	}
	if n.requesting != nil {
		q, err = newRequest(n.mac, n.xid, n.requesting.offer)
		n.due = now + sleep.Jitter(requestPauses()[n.requests])
		n.requests++
	} else {
		q, err = newDiscover(n.mac, n.xid, n.requested)
		n.due = now + sleep.Jitter(n.pause(now, n.discovers))
		n.discovers++
		n.lastDiscover = now
	}
	if err != nil {
		return request{}, false, err
	}
	q.askingFor(now)
	return q, true, nil
}

// timedOut reports whether the requested server had time enough to answer.
func (n *negotiation) timedOut() bool {
	if n.requests >= len(requestPauses()) {
		return true
	}
	other := n.bestOffer()
	return n.requests >= patientRequests && other != nil && other.failures <= n.requesting.failures
}

// bestOffer returns the offer to request next, nil if there is none.
func (n *negotiation) bestOffer() (best *candidate) {
	for _, c := range n.offers {
		if c.open && (best == nil || c.failures < best.failures) {
			best = c
		}
	}
	return best
}

// receive takes an answer of this transaction; given is true when it is an ACK, and
// lease then what it gives.
func (n *negotiation) receive(r reply, now time.Duration) (lease bootnet.Lease, given bool) {
	switch r.message.MessageType() {
	case dhcpv4.MessageTypeOffer:
		n.receiveOffer(r, now)
	case dhcpv4.MessageTypeAck:
		return n.receiveACK(r, now)
	case dhcpv4.MessageTypeNak:
		if n.requesting == nil || n.requesting.server != r.server() {
			break // another server tells us that its network is not that one
		}
		n.requested = netip.Addr{}
		n.fail(n.requesting, r.refusal())
		n.pauseAfter(now)
	}
	return bootnet.Lease{}, false
}

// othersPause is the least time between two DISCOVERs that are due because of answers
// to others.
const othersPause = 2 * time.Second

// receiveOthers takes an answer to another machine.
func (n *negotiation) receiveOthers(r reply, now time.Duration) (changed bool) {
	due := max(now, n.lastDiscover+othersPause)
	if !n.overhears || n.requesting != nil || due >= n.due || !n.accept(r) {
		return false
	}
	n.due = due
	return true
}

// betterOfferWait is how long others have to offer before a server that failed is
// asked again.
const betterOfferWait = 500 * time.Millisecond

func (n *negotiation) receiveOffer(r reply, now time.Duration) {
	if !n.accept(r) {
		return
	}
	lease, err := leaseFrom(r, 0)
	if errors.Is(err, errNoAddress) {
		n.log.Debug("DHCP offer ignored", "error", err)
		return
	}
	c := n.candidate(r)
	if c == nil || c == n.requesting {
		return
	}
	if by, used := n.inUse[bootnet.Addr(r.message.YourIPAddr)]; err == nil && used {
		err = fmt.Errorf("it offers %s again, which %s uses", lease.Address.Addr(), by)
	}
	if err != nil {
		n.report(c, err)
		return
	}
	c.offer, c.lease, c.open = r, lease, true
	switch {
	case n.requesting != nil:
	case c.failures == 0:
		n.due = max(now, n.notBefore)
	default: // a better one may offer too
		n.due = max(min(n.due, now+betterOfferWait), n.notBefore)
	}
}

func (n *negotiation) receiveACK(r reply, now time.Duration) (bootnet.Lease, bool) {
	c := n.candidateOf(r.server())
	if c == nil {
		return bootnet.Lease{}, false
	}
	lease, err := leaseFrom(r, n.began+c.requestedAt) // a lease counts from the moment it was asked for
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

// The pause after an address that another machine turned out to have. RFC 2131 section
// 3.1 wants ten seconds, so that a broken server is not asked for ever; a boot goes on at
// once as long as that is no loop.
const (
	declinePause   = time.Second
	declineLoop    = 3
	declineLoopEnd = 10 * time.Second

	maxInUse = 256 // bounds what a broken server can make us remember
)

// decline returns the message for a server that gave an address which another machine
// has.
func (n *negotiation) decline(lease bootnet.Lease, by ether.MAC, now time.Duration) (request, error) {
	if len(n.inUse) >= maxInUse {
		clear(n.inUse)
	}
	n.inUse[lease.Address.Addr()] = by
	n.requested = netip.Addr{}
	c := n.candidateOf(lease.Server)
	n.report(c, fmt.Errorf("it gives %s, which %s uses; declined", lease.Address.Addr(), by))
	if n.requesting == c {
		n.requesting = nil
	}
	n.discovers = 0
	n.notBefore = now + declinePause
	if len(n.inUse) > declineLoop {
		n.notBefore = now + declineLoopEnd
	}
	n.due = n.notBefore
	return newDecline(n.mac, n.xid, lease)
}

// maxClaims is how many addresses that servers gave us one machine may claim. One
// that claims more wants to keep us out, or stands for others.
const maxClaims = 5

// claimsTooMuch reports whether a machine claims too many addresses, and if so forgets
// them.
func (n *negotiation) claimsTooMuch(by ether.MAC) bool {
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

// candidateOf returns the candidate with that identifier of which an offer was
// requested, nil if there is none.
func (n *negotiation) candidateOf(server netip.Addr) *candidate {
	if n.requesting != nil && n.requesting.server == server {
		return n.requesting
	}
	for _, c := range n.offers {
		if c.server == server && c.requested {
			return c
		}
	}
	return nil
}

// fail puts a server behind those that have not failed.
func (n *negotiation) fail(c *candidate, err error) {
	c.failures++
	n.report(c, err)
	if n.requesting == c {
		n.requesting = nil
	}
}

// failUnanswered is for a requested server that does not answer.
func (n *negotiation) failUnanswered() {
	n.fail(n.requesting, fmt.Errorf("it offers %s and does not give it: %w", n.requesting.lease.Address.Addr(), errNoAnswer))
}

// failure returns why there is no lease at the end of the time for it.
func (n *negotiation) failure() error {
	if n.requesting != nil && n.requests > patientRequests { // it had time
		n.failUnanswered()
	}
	return n.err
}

// soonRetries is how often a server may fail before it is asked less and less.
const soonRetries = 3

// pauseAfter says when to go on after a failure: at once with another server,
// else after a second, and later the more often that happened.
func (n *negotiation) pauseAfter(now time.Duration) {
	n.due = now
	if n.bestOffer() != nil {
		return
	}
	wait := time.Second
	for _, c := range n.offers {
		wait = max(wait, time.Duration(c.failures-soonRetries)*time.Second)
	}
	n.due += sleep.Jitter(min(wait, 8*time.Second))
}

// report logs why a server gives no address, once per reason.
func (n *negotiation) report(c *candidate, err error) {
	n.err = fmt.Errorf("DHCP server %s (%s): %w", c.server, c.mac, err)
	if c.reported != err.Error() {
		c.reported = err.Error()
		n.log.Warn("a DHCP server gives no address", "server", c.server, "mac", c.mac, "error", err)
	}
}
