package blockdaemon

import (
	"context"
	"errors"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/cluster"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/firewall"
)

// leaseChanged saves a renewed lease for the next start of this daemon. With a
// new address everything that is bound to the old one begins again: this
// process ends, and the supervisor starts the next.
func (n *node) leaseChanged(old, renewed bootnet.Lease) {
	n.saveNetwork(func(state *bootnet.Network) { state.Lease = renewed })
	if old.Address != renewed.Address {
		n.moved <- struct{}{}
	}
}

// addressMoved tells the agent which device its sockets belong to now. Ours are
// bound to the address and go on.
func (n *node) addressMoved(holder bootnet.Card) {
	n.saveNetwork(func(state *bootnet.Network) {
		state.Upper = nil
		if holder.Index != state.Card.Index {
			state.Upper = &holder
		}
	})
}

// saveNetwork changes what the agent, and the next start of this daemon, know of
// the network.
func (n *node) saveNetwork(change func(*bootnet.Network)) {
	defer n.changes.Notify()
	n.networkMu.Lock()
	defer n.networkMu.Unlock()
	change(&n.network)
	if err := control.WriteState(control.BootNetworkFile, n.network); err != nil {
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

// openPorts are the ports that other machines need of this one.
func (n *node) openPorts() firewall.Config {
	const tftp = 69
	return firewall.Config{
		Network: n.network.Lease.Address.Masked(),
		Ports: firewall.Ports{
			TCP: []uint16{control.SwarmPort, control.SecondSwarmPort, cluster.DefaultPort, n.boot.ServePort()},
			UDP: []uint16{control.SwarmPort, control.SecondSwarmPort, cluster.DefaultPort, dhcp.ServerPort, dhcp.PXEPort, tftp},
		},
		More: n.runePorts,
		Log:  n.log,
	}
}

// runePorts are those that services of runes listen on. With a file that cannot be read
// there are none until it is written again.
func (n *node) runePorts() firewall.Ports {
	p, err := control.ReadPorts(control.PortsFile)
	if err != nil {
		n.log.Debug("no port of a rune is kept open", "error", err)
	}
	return firewall.Ports{TCP: p.TCP, UDP: p.UDP}
}
