package dhcpclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/klog"
)

// DiscoverPauses are the pauses after the DISCOVERs of a search for servers: they leave
// at 0, 0.5, 1.5 and 3.5 s, and the search ends after 6 s, because a server may take
// 3.5 s to offer.
func DiscoverPauses() []time.Duration {
	return []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 2500 * time.Millisecond}
}

// maxOffers bounds what a broken network can make us remember.
const maxOffers = 32

// Servers are the DHCP servers that were found on a link.
type Servers struct {
	Offers []bootnet.Offer // one of each
	// negotiation goes on from what was offered; nil when nobody was asked.
	negotiation *negotiation
}

// FindServers looks for DHCP servers on a link that is up, without taking a lease.
// It always listens for 6 s.
func FindServers(ctx context.Context, link bootnet.Card, log *slog.Logger) (Servers, error) {
	c, err := newClient(link, log)
	if err != nil {
		return Servers{}, err
	}
	defer c.close()
	n := newNegotiation(link.MAC, netip.Addr{}, log, klog.Uptime())
	q, err := newDiscover(link.MAC, n.xid, netip.Addr{})
	if err != nil {
		return Servers{}, err
	}
	var seen offers
	err = c.ask(ctx, q, DiscoverPauses(), func(r reply) bool {
		if r.message.MessageType() == dhcpv4.MessageTypeOffer {
			n.receive(r, klog.Uptime()-n.began)
			if o, isNew := seen.add(r); isNew {
				log.Info("DHCP server found", "link", link.Name, "server", o.String(), "offers", o.Address)
			}
		}
		return false
	})
	if err != nil && !errors.Is(err, errNoAnswer) {
		return Servers{seen, n}, fmt.Errorf("look for DHCP servers on %s: %w", link.Name, err)
	}
	return Servers{seen, n}, nil
}

// offers holds one Offer for each server: it may offer another address each
// time.
type offers []bootnet.Offer

func (list *offers) add(r reply) (o bootnet.Offer, isNew bool) {
	o = offerIn(r)
	known := slices.ContainsFunc(*list, func(x bootnet.Offer) bool {
		return x.Server == o.Server && x.ServerMAC == o.ServerMAC && x.Viver == o.Viver
	})
	if known || len(*list) >= maxOffers {
		return o, false
	}
	*list = append(*list, o)
	return o, true
}

func offerIn(r reply) bootnet.Offer {
	o := bootnet.Offer{Server: r.server(), ServerMAC: r.from, Viver: r.fromViver()}
	if l, err := leaseFrom(r, 0); err == nil {
		o.Address, o.Network, o.Router = l.Address.Addr(), l.Address.Masked(), l.Router
	}
	return o
}
