package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"viver.lan/internal/config"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/netconf"
)

// network gets this machine its place on the boot network, and from its boot
// host the settings.
func (n *node) network(ctx context.Context) (string, error) {
	if host := n.argument(argHost); host != "" {
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return "", fmt.Errorf("viver.host=%s on the kernel command line is no address", host)
		}
		n.boot.Host = addr
	}
	var err error
	if n.net, err = netconf.Connect(ctx, n.networkConfig()); err != nil {
		return "", err
	}
	n.boot.Interface, n.boot.Index = n.net.Link.Name, n.net.Link.Index
	n.boot.MAC = n.net.Link.MAC.String()
	n.boot.Address = n.net.Lease.Address.Addr()
	n.nameNode()
	detail := fmt.Sprintf("%s on %s", n.net.Lease, n.net.Link)
	for _, o := range n.net.Foreign() {
		n.boot.ForeignDHCP = append(n.boot.ForeignDHCP, o.String())
		detail += "; found " + o.String() + ", so no addresses are given out here"
	}
	if n.boot.First {
		n.boot.BootedBy = "medium"
		return detail, nil
	}
	if !n.boot.Host.IsValid() {
		n.boot.Host = n.net.Lease.BootHost
	}
	if !n.boot.Host.IsValid() {
		return "", errors.New("no medium was found and nobody said who the boot host is: want viver.host= on the kernel command line, or a next-server from DHCP")
	}
	n.boot.BootedBy = "network, from " + n.boot.Host.String()
	settings, err := fetch(ctx, n.boot.Host, "settings.toml")
	if err != nil {
		return "", err
	}
	n.config.AddTOML(config.Network, settings)
	n.nameNode()
	return detail, nil
}

func (n *node) networkConfig() netconf.Config {
	cfg := netconf.Config{First: n.boot.First, Pool: n.config.Settings().Pool, Log: n.log}
	var errs []error
	if s := n.cmdline.Value("BOOTIF"); s != "" {
		mac, err := netconf.ParseBootIF(s)
		errs = append(errs, err)
		cfg.BootIF = mac
	}
	if s := n.cmdline.Value("ip"); s != "" {
		ip, err := netconf.ParseIP(s)
		errs = append(errs, err)
		cfg.IP = ip
	}
	// Nonsense on the command line is said and passed over: a machine whose
	// card is named wrongly may still find its network on another.
	if err := errors.Join(errs...); err != nil {
		n.log.Warn("kernel command line", "why", err)
	}
	return cfg
}

// dhcpMode says what of DHCP is left to the boot hosts of this network. A
// machine that was told its address has not looked who else gives them.
func dhcpMode(network netconf.Network, setting string) dhcp.Mode {
	l := network.Lease
	switch {
	case setting == "external":
		return dhcp.External
	case len(network.Foreign()) > 0, l.Source == netconf.SourceDHCP && !l.Viver:
		return dhcp.Proxy
	default:
		return dhcp.Full
	}
}

// nameNode gives this machine its hostname.
func (n *node) nameNode() {
	n.boot.NodePrefix = n.config.Settings().NodePrefix
	n.boot.Hostname = n.boot.NodeName(n.boot.MAC)
}
