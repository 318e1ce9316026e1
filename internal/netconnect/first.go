package netconnect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/dhcpclient"
)

// carrierWait bounds how long a first node waits for cables.
const carrierWait = 8 * time.Second

// survey is what was found on one link.
type survey struct {
	link    bootnet.Card
	carrier bool // it has a carrier
	servers dhcpclient.Servers
	used    []usedPrefix
}

// connectFirst is Connect for the machine with the medium. It surveys all its links,
// because one table of routes serves them all, and boots from one of allowed.
func connectFirst(ctx context.Context, cfg Config, allowed []bootnet.Card) (bootnet.Network, error) {
	links, err := bootnet.Cards()
	if err != nil {
		return bootnet.Network{}, err
	}
	bringUp(links, cfg.Log)
	surveys := surveyAll(ctx, cfg, links)
	if ctx.Err() != nil {
		return bootnet.Network{}, fmt.Errorf("look for DHCP servers: %w", context.Cause(ctx))
	}
	used, err := kernelPrefixes(links)
	if err != nil {
		return bootnet.Network{}, err
	}
	for _, s := range surveys {
		used = append(used, s.used...)
	}
	best := bestLink(surveys, allowed)
	if !best.carrier {
		// A machine alone with its medium still boots; a cable may come later.
		cfg.Log.Warn("no cable is plugged in; going on alone", "link", best.link.Name)
	}
	warnUnserved(cfg.Log, best.link, surveys)
	n := bootnet.Network{Card: best.link, Offers: best.servers.Offers}
	if cfg.IP.static() {
		n.Lease = cfg.IP.lease()
		return n, nil
	}
	if n.Lease, err = offeredLease(ctx, cfg, best); err == nil || ctx.Err() != nil {
		return n, err
	}
	n.Lease, err = chooseOwn(ctx, cfg, best, used)
	return n, err
}

// offeredLease asks for an address where servers offer one.
func offeredLease(ctx context.Context, cfg Config, s survey) (bootnet.Lease, error) {
	if !offersAddress(s.servers.Offers) {
		return bootnet.Lease{}, errors.New("no server offers an address")
	}
	wait, cancel := context.WithTimeout(ctx, cfg.leaseWait)
	defer cancel()
	l, err := dhcpclient.Acquire(wait, s.link, s.servers, cfg.Log)
	if err != nil && ctx.Err() == nil {
		cfg.Log.Warn("an address is offered and not given. This machine has the medium, so it goes on with an address of its own, and asks again while it runs", "error", err)
	}
	return l, err
}

// chooseOwn has the first node choose an address where no server gives it one.
func chooseOwn(ctx context.Context, cfg Config, s survey, used []usedPrefix) (lease bootnet.Lease, err error) {
	pool := choosePool(cfg, s.link, used)
	if s.carrier {
		lease, err = chooseAddress(ctx, s.link, pool, cfg.Router, cfg.Log)
	} else {
		// Nobody can be asked whether the address is in use.
		lease = selfAssigned(dhcp.Candidate(pool, s.link.MAC, 0), pool)
	}
	if cfg.Router.IsValid() && err == nil && !lease.Address.Contains(cfg.Router) {
		cfg.Log.Warn("the router in the settings is in another network than this machine's address, and may not answer it; set network.pool to the router's network", "router", cfg.Router, "address", lease.Address)
	}
	lease.Router, lease.DNS = cfg.Router, cfg.DNS
	return lease, err
}

// warnUnserved logs the networks that are not served: one machine serves one.
func warnUnserved(log *slog.Logger, served bootnet.Card, surveys []survey) {
	for _, s := range surveys {
		if s.carrier && s.link.Index != served.Index {
			log.Warn("another network card has a cable too, and nothing is served there. To serve it in place of this one, set network.interface",
				"served", served.String(), "not", s.link.String(), "set", s.link.Name)
		}
	}
}

// surveyAll surveys all links at once.
func surveyAll(ctx context.Context, cfg Config, links []bootnet.Card) []survey {
	surveys := make([]survey, len(links))
	var g errgroup.Group
	for i, l := range links {
		g.Go(func() error {
			surveys[i] = surveyLink(ctx, cfg, l)
			return nil
		})
	}
	_ = g.Wait() // the goroutines return no error: one bad link must not stop the others
	return surveys
}

// surveyLink surveys one link, in the six seconds of the search for servers.
func surveyLink(ctx context.Context, cfg Config, l bootnet.Card) survey {
	s := survey{link: l}
	wait, cancel := context.WithTimeout(ctx, carrierWait)
	defer cancel()
	if err := bootnet.WaitCarrier(wait, l.Index); err != nil {
		cfg.Log.Info("link not used", "link", l.Name, "error", err)
		return s
	}
	s.carrier = true
	sniffing, stop := context.WithCancel(ctx)
	defer stop()
	neighbours := make(chan []usedPrefix, 1)
	go func() { neighbours <- sniffARP(sniffing, l, cfg.Log) }()
	var err error
	if s.servers, err = dhcpclient.FindServers(ctx, l, cfg.Log); err != nil {
		cfg.Log.Warn("search for DHCP servers failed", "link", l.Name, "error", err)
	}
	stop()
	s.used = append(offeredPrefixes(l, s.servers.Offers), <-neighbours...)
	return s
}

// choosePool returns the range for the network behind link. What the operator set stays,
// whatever is in use.
func choosePool(cfg Config, link bootnet.Card, used []usedPrefix) netip.Prefix {
	if cfg.Pool.IsValid() {
		if conflicts := conflicting(cfg.Pool, link, used); len(conflicts) > 0 {
			cfg.Log.Warn("network.pool is in use elsewhere and stays because it was set; if machines are not reached, set another range or none",
				"pool", cfg.Pool, "found", conflicts[0], "more", len(conflicts)-1)
		}
		return cfg.Pool
	}
	pool, rejected := firstFreePool(link, used)
	for _, s := range rejected {
		cfg.Log.Info("a range for addresses is not taken, because it is in use", "found", s)
	}
	if len(rejected) == len(pools()) {
		cfg.Log.Warn("every range that could be given out is in use somewhere; if machines are not reached, set network.pool to one that is free here", "pool", pool)
	}
	return pool
}

func offersAddress(offers []bootnet.Offer) bool {
	return slices.ContainsFunc(offers, func(o bootnet.Offer) bool { return o.Address.IsValid() })
}

// bestLink picks the first node's boot link among allowed, which is not empty: one where
// a server offers an address, else the first that has a carrier, else the first.
func bestLink(surveys []survey, allowed []bootnet.Card) survey {
	best := survey{link: allowed[0]}
	for _, s := range surveys {
		switch {
		case !slices.ContainsFunc(allowed, func(l bootnet.Card) bool { return l.Index == s.link.Index }):
		case offersAddress(s.servers.Offers):
			return s
		case s.carrier && !best.carrier:
			best = s
		}
	}
	return best
}
