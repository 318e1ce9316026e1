package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/config"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/hostname"
	"viver.lan/internal/netconnect"
)

// network connects this machine to the boot network.
func (n *node) network(ctx context.Context) (string, error) {
	cfg := n.networkConfig()
	network, err := netconnect.Connect(ctx, cfg)
	if err != nil {
		return "", withLacking(err, n.lacking())
	}
	n.net, n.cmdlineName = network, cfg.IP.Hostname
	n.boot.Interface, n.boot.MAC = n.net.Card.Name, n.net.Card.MAC
	detail := fmt.Sprintf("%s on %s", n.net.Lease, n.net.Card)
	for _, o := range n.net.Foreign() {
		detail += "; found " + o.String() + ", so no addresses are given out here"
	}
	return detail, nil
}

func (n *node) networkConfig() netconnect.Config {
	cfg := netconnect.Config{First: n.boot.First, Log: n.log}
	settings := n.config.Settings()
	if n.config.Source("network.pool") != config.Default {
		cfg.Pool = settings.Pool
	}
	cfg.Interface, cfg.Router, cfg.DNS = settings.Interface, settings.Router, settings.DNS
	var errs []error
	if s := n.cmdline.Value("BOOTIF"); s != "" {
		mac, err := netconnect.ParseBootIF(s)
		errs = append(errs, err)
		cfg.BootIF = mac
	}
	if s := n.cmdline.Value("ip"); s != "" {
		ip, err := netconnect.ParseIP(s)
		errs = append(errs, err)
		cfg.IP = ip
	}
	for _, s := range n.cmdline.All("nameserver") { // dracut's, beside its ip=
		server, err := netip.ParseAddr(s)
		if err != nil || !server.Is4() {
			errs = append(errs, fmt.Errorf("nameserver=%s is no IPv4 address", s))
			continue
		}
		cfg.IP.DNS = append(cfg.IP.DNS, server)
	}
	// Errors on the command line are logged and ignored: a machine whose card is named
	// wrongly may still find its network on another.
	if err := errors.Join(errs...); err != nil {
		n.log.Warn("kernel command line", "error", err)
	}
	return cfg
}

// dhcpMode returns the DHCP mode of the boot hosts of this network. A machine whose
// address is configured has not searched for other servers.
func dhcpMode(network bootnet.Network, setting string) dhcp.Mode {
	l := network.Lease
	switch {
	case setting == "external":
		return dhcp.External
	case len(network.Foreign()) > 0, l.Source == bootnet.SourceDHCP && !l.Viver:
		return dhcp.Proxy
	default:
		return dhcp.Full
	}
}

// servedPool is the range that a boot host here gives addresses from: what the
// settings say if that is a part of the network we are in, else all of it. It is
// another one where the usual range was in use, where the kernel command line
// gave the address, and where a boot host with other settings was first.
func servedPool(lease bootnet.Lease, setting netip.Prefix) netip.Prefix {
	if dhcp.ValidatePool(setting, lease.Address) == nil {
		return setting
	}
	return lease.Address.Masked()
}

// nameNode gives this machine its hostname.
func (n *node) nameNode() {
	n.boot.NodePrefix = n.settings.NodePrefix
	n.boot.Hostname = hostnameOf(n.net.Lease, n.cmdlineName, n.boot.NodeName(n.boot.MAC))
}

// hostnameOf is the one that the kernel command line gives by ip=, or else that a
// VIVER boot host gives, which knows what the operator calls the machine. Another
// server may call all of them alike, so beside it the machine's own name is used,
// which is made of the MAC address.
func hostnameOf(lease bootnet.Lease, cmdlineName, own string) string {
	if hostname.Check(cmdlineName) == nil {
		return cmdlineName
	}
	if lease.Viver && hostname.Check(lease.Hostname) == nil {
		return lease.Hostname
	}
	return own
}
