package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"viver.lan/internal/boothost"
	"viver.lan/internal/cluster"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/operator"
)

// words is what the operator said about machines, as this boot host obeys it,
// and what the members say of each other.
type words struct {
	daemon *control.Client
	boot   *control.Boot
	log    *slog.Logger
	table  *dhcp.Leases // nil where another server gives the addresses
	host   netip.Prefix // our address with the network's prefix length
	heard  atomic.Pointer[map[ether.MAC]operator.Machine]
	said   string // in the log, of words that cannot be obeyed
}

// newWords has the boot host of cfg, which is otherwise complete, use what the
// operator says.
func newWords(daemon *control.Client, boot *control.Boot, cfg *boothost.Config, log *slog.Logger) *words {
	w := &words{daemon: daemon, boot: boot, log: log, host: cfg.Address}
	w.heard.Store(new(map[ether.MAC]operator.Machine))
	cfg.Hostname = w.hostname
	if cfg.Mode == dhcp.Full {
		w.table = dhcp.NewLeases(cfg.Pool, time.Now, cfg.Address.Addr(), cfg.Router)
		cfg.Table = w.table
	}
	return w
}

// hostname is the operator's name for a machine, else one made of its address.
func (w *words) hostname(mac ether.MAC) string {
	if name := (*w.heard.Load())[mac].Name; name != "" {
		return name
	}
	return w.boot.NodeName(mac)
}

// look asks the block daemon for the operator's words. When it does not answer,
// those known count on.
func (w *words) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	entries, err := w.daemon.Overrides(ctx)
	if err != nil {
		w.log.Debug("what the operator said is not known now", "error", err)
		return
	}
	w.hear(entries)
}

// hear obeys entries, and says once what of them cannot be obeyed.
func (w *words) hear(entries []operator.Override) {
	machines, wrong := operator.Machines(entries)
	w.heard.Store(&machines)
	if w.table != nil {
		wrong = append(wrong, w.table.Reserve(w.host.Masked(), w.pins(machines))...)
	}
	if said := fmt.Sprint(wrong); said != w.said {
		w.said = said
		for _, err := range wrong {
			w.log.Warn("an operator override is ignored", "error", err)
		}
	}
}

// pins are the addresses to be kept for machines. Our own, if we have it
// already, is left to the table's reserved ones.
func (w *words) pins(machines map[ether.MAC]operator.Machine) map[ether.MAC]netip.Addr {
	pins := make(map[ether.MAC]netip.Addr)
	for mac, m := range machines {
		if m.Address.IsValid() && (mac != w.boot.MAC || m.Address != w.host.Addr()) {
			pins[mac] = m.Address
		}
	}
	return pins
}

// members takes the block daemon's word on where machines live. Those that are
// off count too: they want their address again.
func (w *words) members(list []control.Member) {
	if w.table == nil {
		return
	}
	lives := make(map[ether.MAC]netip.Addr)
	for _, m := range list {
		if m.Standing != string(cluster.Owned) {
			continue // the MAC address is another's, or may be
		}
		if addr, err := netip.ParseAddr(m.Address); err == nil && m.MAC != (ether.MAC{}) {
			lives[m.MAC] = addr
		}
	}
	w.table.AddHints(lives)
}
