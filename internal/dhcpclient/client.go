// Package dhcpclient is the client's end of DHCP (RFC 2131) on one link: it finds
// servers, gets leases, renews them, and reads what servers send.
//
// It sets no address; that is for whoever asked. The invariant: a lease that it
// returns can be used and kept, whatever the server sent. A new address is returned only
// when no other machine answered a probe for it; when probing fails it counts as free,
// and a renewal does not probe.
//
// # What a VIVER boot host must do
//
// A client speaks DHCP with vendor class (option 60) dhcp.NodeClass and client
// identifier (option 61) 01 followed by its MAC. A VIVER boot host puts option
// dhcp.OptionMark (224, private use by RFC 3942) with the text dhcp.Mark into every
// answer, to firmware too. By that mark a machine with a medium tells a VIVER boot host
// from a foreign DHCP server.
package dhcpclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/contain"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/klog"
	"viver.lan/internal/packet"
	"viver.lan/internal/sleep"
)

var (
	// ErrRefused means that the server answered a request with a NAK.
	ErrRefused  = errors.New("the DHCP server refused the address")
	errNoAnswer = errors.New("no DHCP server answered")
)

// client speaks DHCP on one link.
type client struct {
	link   bootnet.Card
	socket *packet.Socket
	log    *slog.Logger
	// held is the address that the link has already, invalid before its first.
	held netip.Addr
}

func newClient(link bootnet.Card, log *slog.Logger) (*client, error) {
	if link.MAC == (ether.MAC{}) {
		return nil, fmt.Errorf("link %s has no Ethernet address", link.Name)
	}
	s, err := packet.Open(link.Index, packet.EtherTypeIPv4, packet.UDPTo(dhcp.ClientPort))
	if err != nil {
		return nil, fmt.Errorf("DHCP on %s: %w", link.Name, err)
	}
	return &client{link: link, socket: s, log: log}, nil
}

func (c *client) close() { c.socket.Close() }

// send sends a message; one that is lost is sent again when it is due.
func (c *client) send(q request) {
	if err := c.socket.Send(q.frame(c.link.MAC)); err != nil {
		// A full queue or a link that is down for a moment; the next one may pass.
		c.log.Debug("DHCP message not sent", "link", c.link.Name, "error", err)
	}
}

// negotiate carries n on until there is a lease whose address nobody else uses,
// or ctx ends.
func (c *client) negotiate(ctx context.Context, n *negotiation) (bootnet.Lease, error) {
	probe := newAddressProbe(ctx, c.link, c.held, c.log)
	defer probe.stop()
	for {
		q, ok, err := n.next(klog.Uptime() - n.began)
		if err != nil {
			return bootnet.Lease{}, err
		}
		if ok {
			c.send(q)
		}
		if n.requesting != nil {
			probe.start(n.requesting.lease.Address) // while the server works on its answer
		}
		lease, given, err := c.receiveUntilDue(ctx, n)
		if err != nil {
			return bootnet.Lease{}, fmt.Errorf("%w (%w)", n.failure(), err)
		}
		if !given {
			continue
		}
		by, used := probe.result(lease.Address)
		if !used {
			return lease, nil
		}
		if q, err = n.decline(lease, by, klog.Uptime()-n.began); err != nil {
			return bootnet.Lease{}, err
		}
		c.send(q)
		if n.claimsTooMuch(by) {
			probe.ignore(by)
			c.log.Warn("a machine claims every address that is given to this one, so its answers do not count any more", "link", c.link.Name, "mac", by, "claims", maxClaims)
		}
	}
}

// receiveUntilDue hands answers to n until one changes what is due, or until
// something is due.
func (c *client) receiveUntilDue(ctx context.Context, n *negotiation) (lease bootnet.Lease, given bool, err error) {
	deadline := time.Now().Add(n.due - (klog.Uptime() - n.began))
	err = c.receiveUntil(ctx, deadline, func(frame []byte) bool {
		r, ok := parseReply(frame, c.link.MAC, n.xid)
		if !ok {
			r, ok = parseAnyReply(frame)
			return ok && n.receiveOthers(r, klog.Uptime()-n.began)
		}
		lease, given = n.receive(r, klog.Uptime()-n.began)
		if given {
			for _, defect := range r.defects() {
				c.log.Warn("odd answer of a DHCP server", "server", lease.Server, "address", lease.Address, "reason", defect)
			}
		}
		return true
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return lease, given, err
}

// receiveUntil hands frames to handle until it returns true. A panic costs one frame:
// during the boot this is process 1, whose end would be the kernel's.
func (c *client) receiveUntil(ctx context.Context, deadline time.Time, handle func(frame []byte) bool) error {
	return c.socket.ReceiveUntil(ctx, deadline, func(frame []byte) (done bool) {
		contain.Do(c.log, "an answer of a DHCP server", func() { done = handle(frame) })
		return done
	})
}

// ask sends q once per entry of waits and receives for that long after each, until
// accept takes an answer; without one it returns errNoAnswer.
func (c *client) ask(ctx context.Context, q request, waits []time.Duration, accept func(reply) bool) error {
	began := klog.Uptime()
	for _, wait := range waits {
		q.askingFor(klog.Uptime() - began)
		c.send(q)
		err := c.receiveUntil(ctx, time.Now().Add(wait), func(frame []byte) bool {
			r, ok := parseReply(frame, c.link.MAC, q.message.TransactionID)
			return ok && accept(r)
		})
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return errNoAnswer
}

// renewalWaits are the pauses after each REQUEST of a renewal.
func renewalWaits() []time.Duration {
	return []time.Duration{sleep.Jitter(time.Second), sleep.Jitter(2 * time.Second), sleep.Jitter(4 * time.Second)}
}

// Renew asks to keep l: the server that gave it, or any when broadcast is true.
// The error is ErrRefused when a server answers that the address is not ours any more.
func Renew(ctx context.Context, link bootnet.Card, l bootnet.Lease, broadcast bool, log *slog.Logger) (bootnet.Lease, error) {
	c, err := newClient(link, log)
	if err != nil {
		return bootnet.Lease{}, err
	}
	defer c.close()
	q, err := newRenewal(c.link.MAC, NewTransaction(), l, broadcast)
	if err != nil {
		return bootnet.Lease{}, err
	}
	var renewed bootnet.Lease
	var verdict error
	asked := klog.Uptime() // a lease counts from the moment it was asked for
	err = c.ask(ctx, q, renewalWaits(), func(r reply) bool {
		switch r.message.MessageType() {
		case dhcpv4.MessageTypeAck:
			renewed, verdict = leaseFrom(r, asked)
			return verdict == nil
		case dhcpv4.MessageTypeNak:
			verdict = r.refusal()
			return true
		}
		return false
	})
	if verdict != nil {
		return bootnet.Lease{}, verdict
	}
	if err != nil {
		return bootnet.Lease{}, fmt.Errorf("REQUEST: %w", err)
	}
	if !renewed.BootHost.IsValid() {
		renewed.BootHost = l.BootHost // some servers name it only in the first answer
	}
	return renewed, nil
}

// NewTransaction returns a random transaction ID.
func NewTransaction() dhcpv4.TransactionID {
	n := rand.Uint32()
	return dhcpv4.TransactionID{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// reacquireWait bounds one search for a lease in place of one that has ended.
const reacquireWait = 20 * time.Second

// Reacquire asks all servers for a lease in place of one that has ended, for the
// address that the link has if that can be. It takes 20 s at most.
func Reacquire(ctx context.Context, link bootnet.Card, held netip.Addr, log *slog.Logger) (bootnet.Lease, error) {
	c, err := newClient(link, log)
	if err != nil {
		return bootnet.Lease{}, err
	}
	defer c.close()
	ctx, cancel := context.WithTimeoutCause(ctx, reacquireWait, fmt.Errorf("given up after %s", reacquireWait))
	defer cancel()
	c.held = held
	return c.negotiate(ctx, newNegotiation(c.link.MAC, held, c.log, klog.Uptime()))
}
