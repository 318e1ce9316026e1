package netconf

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

	"viver.lan/internal/dhcp"
	"viver.lan/internal/klog"
)

var (
	// errRefused means that the server answered a request with a NAK.
	errRefused  = errors.New("the DHCP server refused the address")
	errNoAnswer = errors.New("no DHCP server answered")
)

// client speaks DHCP on one link.
type client struct {
	link   Link
	socket *packetSocket
	log    *slog.Logger
}

func newClient(link Link, log *slog.Logger) (*client, error) {
	if link.MAC == (MAC{}) {
		return nil, fmt.Errorf("link %s has no Ethernet address", link.Name)
	}
	s, err := openPacketSocket(link.Index, etherTypeIPv4, udpTo(dhcp.ClientPort))
	if err != nil {
		return nil, fmt.Errorf("DHCP on %s: %w", link.Name, err)
	}
	return &client{link: link, socket: s, log: log}, nil
}

func (c *client) close() { c.socket.close() }

// ask sends q once per entry of waits, listening that long after each, until
// hear accepts an answer; without one it returns errNoAnswer.
func (c *client) ask(ctx context.Context, q question, waits []time.Duration, hear func(reply) bool) error {
	began := time.Now()
	for _, wait := range waits {
		q.message.NumSeconds = uint16(min(time.Since(began)/time.Second, 0xffff))
		if err := c.socket.send(q.frame(c.link.MAC)); err != nil {
			// A full queue or a link that is down for a moment; the next one may pass.
			c.log.Debug("DHCP message not sent", "link", c.link.Name, "error", err)
		}
		err := c.socket.receiveUntil(ctx, time.Now().Add(wait), func(frame []byte) bool {
			r, ok := parseReply(frame, c.link.MAC, q.message.TransactionID)
			return ok && hear(r)
		})
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return errNoAnswer
}

// discoverWaits are the pauses after each DISCOVER of one round. A server may
// need 3.5 s before it offers (dnsmasq pings the address first).
func discoverWaits() []time.Duration {
	return jitter(time.Second, 2*time.Second, 4*time.Second, 8*time.Second)
}

// requestWaits are the pauses after each REQUEST.
func requestWaits() []time.Duration {
	return jitter(time.Second, 2*time.Second, 4*time.Second)
}

// jitter spreads the pauses by a fifth either way, so that a room of machines
// switched on together does not ask in step.
func jitter(waits ...time.Duration) []time.Duration {
	for i, w := range waits {
		waits[i] = w*4/5 + time.Duration(rand.Int64N(int64(w*2/5)))
	}
	return waits
}

// once goes through DISCOVER, OFFER, REQUEST, ACK one time.
func (c *client) once(ctx context.Context, want netip.Addr) (Lease, error) {
	discover, err := newDiscover(c.link.MAC, newTransaction(), want)
	if err != nil {
		return Lease{}, err
	}
	var offer reply
	err = c.ask(ctx, discover, discoverWaits(), func(r reply) bool {
		if r.message.MessageType() != dhcpv4.MessageTypeOffer {
			return false
		}
		// An offer with no address is a proxyDHCP server's; with no mask it is broken.
		if _, err := leaseFrom(r, 0); err != nil {
			c.log.Debug("DHCP offer passed over", "link", c.link.Name, "reason", err)
			return false
		}
		offer = r
		return true
	})
	if err != nil {
		return Lease{}, fmt.Errorf("DISCOVER: %w", err)
	}
	request, err := newRequest(c.link.MAC, offer)
	if err != nil {
		return Lease{}, err
	}
	return c.request(ctx, request, requestWaits(), offer.server())
}

// renew asks to keep l.
func (c *client) renew(ctx context.Context, l Lease, broadcast bool) (Lease, error) {
	q, err := newRenewal(c.link.MAC, newTransaction(), l, broadcast)
	if err != nil {
		return Lease{}, err
	}
	renewed, err := c.request(ctx, q, requestWaits(), netip.Addr{})
	if err != nil {
		return Lease{}, err
	}
	if !renewed.BootHost.IsValid() {
		renewed.BootHost = l.BootHost // some servers name it only in the first answer
	}
	return renewed, nil
}

// request sends a REQUEST and waits for the verdict; of one server when server
// is valid.
func (c *client) request(ctx context.Context, q question, waits []time.Duration, server netip.Addr) (Lease, error) {
	var lease Lease
	var verdict error
	asked := klog.Uptime() // a lease counts from the moment it was asked for
	err := c.ask(ctx, q, waits, func(r reply) bool {
		if server.IsValid() && r.server() != server {
			return false
		}
		switch r.message.MessageType() {
		case dhcpv4.MessageTypeAck:
			lease, verdict = leaseFrom(r, asked)
			return verdict == nil
		case dhcpv4.MessageTypeNak:
			verdict = errRefused
			if text := r.message.Message(); text != "" {
				verdict = fmt.Errorf("%w: %q", errRefused, text)
			}
			return true
		}
		return false
	})
	if verdict != nil {
		return Lease{}, verdict
	}
	if err != nil {
		return Lease{}, fmt.Errorf("REQUEST: %w", err)
	}
	return lease, nil
}

func newTransaction() dhcpv4.TransactionID {
	n := rand.Uint32()
	return dhcpv4.TransactionID{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
}

// sleep waits for d or for the end of ctx, whose cause it then returns.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
