package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/config"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/durable"
	"viver.lan/internal/hostname"
	"viver.lan/internal/netconnect"
)

// network connects this machine to the boot network, and fetches the settings from
// its boot host.
func (n *node) network(ctx context.Context) (string, error) {
	var err error
	if n.boot.Host, n.boot.Origin, err = n.bootedBy(); err != nil {
		return "", err
	}
	cfg := n.networkConfig()
	if n.net, err = netconnect.Connect(ctx, cfg); err != nil {
		return "", err
	}
	n.cmdlineName = cfg.IP.Hostname
	n.boot.Interface, n.boot.MAC = n.net.Card.Name, n.net.Card.MAC
	n.nameNode()
	detail := fmt.Sprintf("%s on %s", n.net.Lease, n.net.Card)
	for _, o := range n.net.Foreign() {
		detail += "; found " + o.String() + ", so no addresses are given out here"
	}
	if n.boot.First {
		n.boot.BootedBy = "medium"
		return detail, nil
	}
	if host := n.net.Lease.BootHost; !n.boot.Host.IsValid() && host.IsValid() {
		n.boot.Host = netip.AddrPortFrom(host, control.HTTPPort)
	}
	if !n.boot.Host.IsValid() {
		return "", errors.New("no medium was found and the boot host is not known: want viver.host= on the kernel command line, or a next-server from DHCP")
	}
	n.boot.BootedBy = "network, from " + n.boot.Host.Addr().String()
	settings, err := fetch(ctx, n.boot.Host, "settings.toml")
	if err != nil {
		return "", err
	}
	n.config.AddTOML(config.Network, settings)
	n.nameNode()
	// Saved as they came: this machine may become a boot host.
	return detail, durable.WriteFile(control.SettingsFile, settings, 0o644)
}

// bootedBy reads the boot host and the machine with the medium from the
// kernel command line. Both are unset where it does not name them.
func (n *node) bootedBy() (host netip.AddrPort, origin netip.Addr, err error) {
	if text := n.argument(argHost); text != "" {
		if host, err = parseHost(text); err != nil {
			return host, origin, fmt.Errorf("viver.host=%s on the kernel command line: %w", text, err)
		}
	}
	if text := n.argument(argOrigin); text != "" {
		if origin, err = netip.ParseAddr(text); err != nil {
			n.log.Warn("kernel command line", "error", fmt.Errorf("viver.origin=%s is no address", text))
			err = nil // without it the machine only needs a moment longer
		}
	}
	return host, origin, nil
}

// parseHost reads an address with or without the port of its HTTP server.
func parseHost(text string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(addr, control.HTTPPort), nil
	}
	host, err := netip.ParseAddrPort(text)
	if err != nil || host.Port() == 0 {
		return netip.AddrPort{}, errors.New("want an address, or an address and a port")
	}
	return host, nil
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
	n.boot.NodePrefix = n.config.Settings().NodePrefix
	n.boot.Hostname = hostnameOf(&n.boot, n.net.Lease, n.cmdlineName)
}

// hostnameOf is the one that the kernel command line gives by ip=, or else that a
// VIVER boot host gives, which knows what the operator calls the machine. Another
// server may call all of them alike, so beside it the name is made of the MAC
// address.
func hostnameOf(boot *control.Boot, lease bootnet.Lease, cmdlineName string) string {
	if hostname.Check(cmdlineName) == nil {
		return cmdlineName
	}
	if lease.Viver && hostname.Check(lease.Hostname) == nil {
		return lease.Hostname
	}
	return boot.NodeName(boot.MAC)
}
