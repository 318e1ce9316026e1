package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"viver.lan/internal/config"
	"viver.lan/internal/control"
	"viver.lan/internal/durable"
)

// boothost finds the machine that serves this one, and fetches the settings of the
// network from it. The first node has them on its medium.
func (n *node) boothost(ctx context.Context) (string, error) {
	if n.boot.First {
		n.boot.BootedBy = "medium"
		return "none, this is the first node", nil
	}
	var err error
	if n.boot.Host, n.boot.Origin, err = n.bootedBy(); err != nil {
		return "", err
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
	// Saved as they came: this machine may become a boot host.
	return n.boot.Host.String(), durable.WriteFile(control.SettingsFile, settings, 0o644)
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
