package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/dhcpwatch"
)

// foreign is what this boot host knows of DHCP servers that are not VIVER's. It
// lives in memory only and is learnt again from the link.
type foreign struct {
	account *dhcp.Foreign
	watch   *dhcpwatch.ForeignWatch
}

// newForeign begins with the servers that were there when this machine got its
// address.
func newForeign(p place, log *slog.Logger) *foreign {
	lease, link := p.network.Lease, p.network.Holder()
	f := &foreign{account: dhcp.NewForeign(lease.Address.Addr(), link.MAC, time.Now)}
	f.watch = dhcpwatch.NewForeignWatch(link, f.account, log)
	f.watch.Found = func(s dhcp.Observation) {
		log.Warn("another DHCP server is on the link: this boot host gives no addresses while it is there, only the boot program", "server", s.Server, "how", s.How)
	}
	f.watch.Gone = func(server netip.Addr) {
		log.Warn("a DHCP server is gone", "server", server, "gives_addresses", !f.account.Present())
	}
	if lease.Source == bootnet.SourceDHCP && !lease.Viver {
		f.account.Observe(dhcp.Observation{Server: lease.Server, Spoken: true, To: link.MAC, How: "our own lease"})
	}
	for _, o := range p.network.Foreign() {
		if o.Address.IsValid() { // else it names boot programs only
			f.account.Observe(dhcp.Observation{Server: o.Server, Spoken: true, To: link.MAC, How: "an offer when this machine booted"})
		}
	}
	return f
}

// serve runs do, which gives addresses, beside a watch over the link. The machine
// with the medium has searched for servers when it booted; any other searches first.
func (f *foreign) serve(ctx context.Context, first bool, do func(context.Context) error) error {
	ready := make(chan struct{})
	g, ctx := errgroup.WithContext(ctx)
	f.watch.Ready = sync.OnceFunc(func() { close(ready) })
	g.Go(func() error { return f.watch.Run(ctx) })
	g.Go(func() error {
		if !first {
			select {
			case <-ready:
			case <-ctx.Done():
				return nil
			}
		}
		return do(ctx)
	})
	return g.Wait()
}
