// Package netconnect brings a machine onto its boot network, once, at boot.
//
// It finds the network cards, asks for an address by DHCP, takes the one that the
// kernel argument ip= gives, or on an empty network chooses one by itself. It is no
// network manager: it knows one link, IPv4 and one address; package netguard keeps
// them. The invariant: after Connect the boot link is up and has its address, and the
// first node gets one whatever the network answers.
package netconnect

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/dhcpclient"
	"viver.lan/internal/ether"
)

// Config says how Connect finds the machine's place.
type Config struct {
	BootIF ether.MAC  // the card the firmware booted from; zero: not known
	IP     IPArgument // the kernel argument ip=; zero: not given
	// First is true on the machine with the medium: it looks for DHCP servers,
	// and on an empty network chooses its own address.
	First bool
	// Pool is the range of the address it chooses; invalid: the first of some
	// private ones that nobody seems to use, on any link.
	Pool netip.Prefix
	// Interface is the card that the operator chose, by name or MAC; empty: any.
	Interface string
	// Router and DNS are what the first node of an empty network has and gives
	// out, there being no server to name them; empty: none.
	Router netip.Addr
	DNS    []netip.Addr
	Log    *slog.Logger

	// cardWait bounds how long the card that BootIF or Interface names is
	// waited for before all cards are tried; 0 means 10 s, enough for one on USB.
	cardWait time.Duration
	// leaseWait bounds how long a first node waits for an address that a server
	// offers; 0 means 20 s: a server that answers each time after 7 s has given
	// it by then, and the stage has time to go on without.
	leaseWait time.Duration
}

// Connect finds the boot link, gets an address and applies it. A machine
// without the medium goes on asking, on all its links at once unless BOOTIF or
// ip= names one, until ctx ends, and the error then says of every link what it
// lacked.
func Connect(ctx context.Context, cfg Config) (bootnet.Network, error) {
	if cfg.Pool.IsValid() {
		if err := dhcp.ValidatePool(cfg.Pool, cfg.Pool); err != nil {
			return bootnet.Network{}, err
		}
	}
	cfg.leaseWait = cmp.Or(cfg.leaseWait, 20*time.Second)
	cfg.cardWait = cmp.Or(cfg.cardWait, 10*time.Second)
	if cfg.IP.Off {
		return bootnet.Network{}, errors.New("the kernel command line says ip=off, but the boot needs a network")
	}
	if err := bootnet.LoopbackUp(); err != nil {
		return bootnet.Network{}, err
	}
	links, err := bootLinks(ctx, cfg)
	if err != nil {
		return bootnet.Network{}, err
	}
	bringUp(links, cfg.Log)
	var n bootnet.Network
	switch {
	case cfg.First:
		n, err = connectFirst(ctx, cfg, links)
	case cfg.IP.static():
		var link bootnet.Card
		link, err = firstCarrier(ctx, links)
		n = bootnet.Network{Card: link, Lease: cfg.IP.lease()}
	default:
		n, err = firstLease(ctx, cfg.Log, links)
	}
	if err != nil {
		return bootnet.Network{}, err
	}
	n.Lease = cfg.IP.override(n.Lease)
	if err := configure(ctx, &n, cfg.Log); err != nil {
		return bootnet.Network{}, err
	}
	cfg.Log.Info("on the boot network", "link", n.Card.String(), "address", n.Lease.String())
	return n, nil
}

// configure puts the lease into the kernel. Only the address is needed for the boot; what
// else fails is logged.
func configure(ctx context.Context, n *bootnet.Network, log *slog.Logger) error {
	if n.Lease.Source == bootnet.SourceStatic {
		warnIfUsed(ctx, n.Card, n.Lease.Address, log)
	}
	if err := bootnet.Apply(n.Card, n.Lease); err != nil {
		return err
	}
	if err := bootnet.SetRoutes(n.Card.Index, n.Lease); err != nil {
		log.Warn("a route of the lease is not set", "link", n.Card.Name, "error", err)
	}
	switchOnTCPProbing(log)
	bootnet.ApplyMTU(ctx, n.Card, &n.Lease, log)
	return nil
}

// warnIfUsed logs another machine that has the address which the kernel command line
// gives us. It is used all the same: there is no other.
func warnIfUsed(ctx context.Context, link bootnet.Card, address netip.Prefix, log *slog.Logger) {
	by, used, err := bootnet.NewLeaseProber(link, nil, log).Owner(ctx, address)
	switch {
	case used:
		log.Warn("another machine uses the address that ip= on the kernel command line gives this one; one of the two has to change", "address", address, "by", by)
	case err != nil:
		log.Warn("the address was not probed for", "link", link.Name, "address", address, "error", err)
	}
}

// bootLinks waits for the cards that may be the boot link. A name may be wrong: BOOTIF
// may be of another machine, or of a card whose driver we lack, and a distribution's name
// for a card is not its name yet. So it decides only where it fits a card.
func bootLinks(ctx context.Context, cfg Config) ([]bootnet.Card, error) {
	for _, c := range cfg.hints() {
		wait, cancel := context.WithTimeout(ctx, cfg.cardWait)
		links, err := waitCards(wait, c)
		cancel()
		if err == nil || ctx.Err() != nil {
			return links, err
		}
		cfg.Log.Warn("no card of this machine has the name or address that was set, so any may be the boot link", "error", err)
	}
	if cfg.First {
		return waitCards(ctx, cardFilter{}) // a medium always starts its machine
	}
	return waitCards(ctx, cardFilter{Device: cfg.IP.Device})
}

// hints are the settings that name a card, the strongest first.
func (cfg Config) hints() (list []cardFilter) {
	device := cfg.IP.Device
	if cfg.Interface != "" && device == "" {
		c := cardFilter{Device: cfg.Interface, Source: "network.interface"}
		if mac, err := ether.ParseMAC(cfg.Interface); err == nil {
			c = cardFilter{MAC: mac, Source: "network.interface"}
		}
		list = append(list, c)
	}
	if cfg.BootIF != (ether.MAC{}) {
		list = append(list, cardFilter{MAC: cfg.BootIF, Device: device})
	}
	if cfg.First && device != "" {
		list = append(list, cardFilter{Device: device})
	}
	return list
}

// bringUp switches links on. A failure of one does not stop the others.
func bringUp(links []bootnet.Card, log *slog.Logger) {
	for _, l := range links {
		if err := bootnet.LinkUp(l.Index); err != nil {
			log.Warn("link not switched on", "link", l.Name, "error", err)
		}
	}
}

// firstCarrier waits until one of the links has a carrier.
func firstCarrier(ctx context.Context, links []bootnet.Card) (bootnet.Card, error) {
	return race(ctx, links, func(ctx context.Context, l bootnet.Card) (bootnet.Card, error) {
		return l, bootnet.WaitCarrier(ctx, l.Index)
	})
}

// firstLease asks on all links at once and takes the first lease there is.
func firstLease(ctx context.Context, log *slog.Logger, links []bootnet.Card) (bootnet.Network, error) {
	return race(ctx, links, func(ctx context.Context, l bootnet.Card) (bootnet.Network, error) {
		lease, err := dhcpclient.Acquire(ctx, l, dhcpclient.Servers{}, log)
		return bootnet.Network{Card: l, Lease: lease}, err
	})
}

// race runs try for every link and returns the first success; when all fail,
// all their errors.
func race[T any](ctx context.Context, links []bootnet.Card, try func(context.Context, bootnet.Card) (T, error)) (T, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type result struct {
		value T
		err   error
	}
	results := make(chan result, len(links))
	for _, l := range links {
		go func() {
			v, err := try(ctx, l)
			results <- result{v, err}
		}()
	}
	var winner *T
	var failures []error
	for range links {
		r := <-results
		switch {
		case r.err != nil:
			failures = append(failures, r.err)
		case winner == nil:
			winner = &r.value
			cancel(errors.New("another link was faster"))
		}
	}
	if winner == nil {
		return *new(T), errors.Join(failures...)
	}
	return *winner, nil
}

// tcpProbing has TCP find a smaller packet size by itself where large packets are dropped
// silently (RFC 4821); Linux leaves it off.
const tcpProbing = "/proc/sys/net/ipv4/tcp_mtu_probing"

// switchOnTCPProbing keeps connections alive on a path with a smaller MTU than its ends
// have: a tunnel between two switches, or a VPN.
func switchOnTCPProbing(log *slog.Logger) {
	if err := os.WriteFile(tcpProbing, []byte("1"), 0); err != nil {
		log.Debug("TCP does not probe for the path's MTU", "error", err)
	}
}
