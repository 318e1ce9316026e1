package netconnect

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/klog"
)

// maxCandidates bounds how many addresses are tried.
const maxCandidates = 32

// chooseAddress takes an address for the first node of an empty network: the
// first of the machine's candidates that nobody else on the link uses. Those are
// the addresses that a boot host would give it, so a machine keeps its address
// when it boots from another one's medium next time. router is the one address
// that is in use in any case; invalid: none.
//
// The machine has the medium, so it starts in any case: when it cannot probe, or all
// candidates are in use, it takes the first, with a warning.
func chooseAddress(ctx context.Context, link bootnet.Card, pool netip.Prefix, router netip.Addr, log *slog.Logger) (bootnet.Lease, error) {
	if err := dhcp.ValidatePool(pool, pool); err != nil {
		return bootnet.Lease{}, fmt.Errorf("choose an address on %s: %w", link.Name, err)
	}
	probe := bootnet.NewProber(link, log)
	var first netip.Addr
	for n := range maxCandidates {
		ip := dhcp.Candidate(pool, link.MAC, n)
		if ip == router {
			continue
		}
		if !first.IsValid() {
			first = ip
		}
		by, used, err := probe.Owner(ctx, netip.PrefixFrom(ip, pool.Bits()))
		if ctx.Err() != nil {
			return bootnet.Lease{}, fmt.Errorf("choose an address on %s: %w", link.Name, context.Cause(ctx))
		}
		if err != nil {
			log.Warn("the address was not probed for; it is used", "link", link.Name, "address", ip, "error", err)
			return selfAssigned(ip, pool), nil
		}
		if !used {
			return selfAssigned(ip, pool), nil
		}
		log.Info("address is in use, trying another", "link", link.Name, "address", ip, "by", by)
	}
	if !first.IsValid() {
		return bootnet.Lease{}, fmt.Errorf("choose an address on %s: %s holds no address beside the router's", link.Name, pool)
	}
	log.Warn("every address that was tried is in use; one of them is taken all the same, because this machine has the medium. Set network.pool to a range that is free",
		"link", link.Name, "tried", maxCandidates, "pool", pool, "address", first)
	return selfAssigned(first, pool), nil
}

func selfAssigned(ip netip.Addr, pool netip.Prefix) bootnet.Lease {
	return bootnet.Lease{Source: bootnet.SourceSelf, Address: netip.PrefixFrom(ip, pool.Bits()), BootHost: ip, Obtained: klog.Uptime()}
}
