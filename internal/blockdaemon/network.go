package blockdaemon

import (
	"context"
	"errors"

	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/netconf"
)

// leaseChanged saves a renewed lease for the next start of this daemon. With a
// new address everything that is bound to the old one begins again: this
// process ends, and the supervisor starts the next.
func (n *node) leaseChanged(old, renewed netconf.Lease) {
	n.saveNetwork(func(state *netconf.Network) { state.Lease = renewed })
	if old.Address == renewed.Address {
		return
	}
	n.boot.Address = renewed.Address.Addr()
	if n.boot.DHCP == string(dhcp.Full) && renewed.Source == netconf.SourceDHCP && !renewed.Viver {
		n.boot.DHCP = string(dhcp.Proxy)
		n.boot.ForeignDHCP = append(n.boot.ForeignDHCP, netconf.Offer{Server: renewed.Server, ServerMAC: renewed.ServerMAC}.String())
	}
	if err := control.WriteState(control.MoveFile, control.Move{Address: n.boot.Address, DHCP: n.boot.DHCP, ForeignDHCP: n.boot.ForeignDHCP}); err != nil {
		n.log.Warn("new address not saved for a restart", "error", err)
	}
	n.moved <- struct{}{}
}

// addressMoved tells the agent which device its sockets belong to now. Ours are
// bound to the address and go on.
func (n *node) addressMoved(holder netconf.Link) {
	n.saveNetwork(func(state *netconf.Network) {
		state.Upper = nil
		if holder.Index != state.Link.Index {
			state.Upper = &holder
		}
	})
}

// saveNetwork changes what the agent, and the next start of this daemon, know of
// the network.
func (n *node) saveNetwork(change func(*netconf.Network)) {
	n.networkMu.Lock()
	defer n.networkMu.Unlock()
	change(&n.network)
	if err := writeNetwork(netconf.StateFile, n.network); err != nil {
		n.log.Warn("what changed of the network is not saved for a restart", "error", err)
	}
}

// errMoved ends the daemon so that it begins again on its new address.
var errMoved = errors.New("this machine has a new address; starting again on it")

// watchAddress waits for a new address.
func (n *node) watchAddress(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-n.moved:
		return errMoved
	}
}
