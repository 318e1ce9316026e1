package agent

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"viver.lan/internal/boothost"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/operator"
)

// overrides are the operator's, as this boot host obeys them, and what the members
// say of their addresses.
type overrides struct {
	boot     *control.Boot
	log      *slog.Logger
	table    *dhcp.Leases // nil where another server gives the addresses
	host     netip.Prefix // our address with the network's prefix length
	machines atomic.Pointer[map[ether.MAC]operator.Machine]
	refused  string // overrides that were logged last
}

// newOverrides has the boot host of cfg, which is otherwise complete, use the
// operator's overrides.
func newOverrides(boot *control.Boot, cfg *boothost.Config, log *slog.Logger) *overrides {
	o := &overrides{boot: boot, log: log, host: cfg.Address}
	o.machines.Store(new(map[ether.MAC]operator.Machine))
	cfg.Hostname = o.hostname
	if cfg.Mode == dhcp.Full {
		o.table = dhcp.NewLeases(cfg.Pool, time.Now, cfg.Address.Addr(), cfg.Router)
		cfg.Table = o.table
	}
	return o
}

// hostname is the operator's name for a machine, else one made of its address.
func (o *overrides) hostname(mac ether.MAC) string {
	if name := (*o.machines.Load())[mac].Name; name != "" {
		return name
	}
	return o.boot.NodeName(mac)
}

// take uses what the block daemon knows of overrides and members.
func (o *overrides) take(s *control.Status) {
	o.obey(s.Overrides)
	o.members(s.Members)
}

// obey uses the operator's overrides, and logs once those that cannot be obeyed.
func (o *overrides) obey(list []operator.Override) {
	machines, wrong := operator.Machines(list)
	o.machines.Store(&machines)
	if o.table != nil {
		wrong = append(wrong, o.table.Reserve(o.host.Masked(), o.reservations(machines))...)
	}
	if refused := fmt.Sprint(wrong); refused != o.refused {
		o.refused = refused
		for _, err := range wrong {
			o.log.Warn("an override of the operator's cannot be obeyed", "error", err)
		}
	}
}

// reservations are the addresses to be kept for machines. Our own, if we have it
// already, is left to the table's reserved ones.
func (o *overrides) reservations(machines map[ether.MAC]operator.Machine) map[ether.MAC]netip.Addr {
	kept := make(map[ether.MAC]netip.Addr)
	for mac, m := range machines {
		if m.Address.IsValid() && (mac != o.boot.MAC || m.Address != o.host.Addr()) {
			kept[mac] = m.Address
		}
	}
	return kept
}

// members tells the table where machines live. Those that are off count too: they
// want their address again.
func (o *overrides) members(list []control.Member) {
	if o.table == nil {
		return
	}
	lives := make(map[ether.MAC]netip.Addr)
	for _, m := range list {
		if m.NameState == control.Owned && m.MAC != (ether.MAC{}) && m.Address.IsValid() { // else its MAC address is another's, or may be
			lives[m.MAC] = m.Address
		}
	}
	o.table.AddHints(lives)
}

// liveOverride is the override that points to the live layer in use, for machines that
// boot; nil while there is none. That this node has not got the layer yet is no reason to
// hide it: the machine would not learn that it lacks something.
func (a *agent) liveOverride() []byte {
	l := a.latest.Load()
	if l == nil || l.status == nil {
		return nil
	}
	for _, o := range l.status.Overrides {
		if o.Key == livelayer.Key && o.Value != "" {
			text, err := json.Marshal(o)
			if err != nil {
				return nil // there is nothing in it that has no JSON
			}
			return text
		}
	}
	return nil
}
