package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"viver.lan/internal/control"
	"viver.lan/internal/durable"
	"viver.lan/internal/handover"
	"viver.lan/internal/hardware"
	"viver.lan/internal/initsystem"
	"viver.lan/internal/livechange"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/runes"
	live "viver.lan/internal/runner"
	"viver.lan/internal/sshkey"
)

// readBundles reads the role bundles. The ones of the medium, or of the boot host in
// its place, replace built-in ones of the same name. One that is broken is left out, and
// the stage runes says so.
func (n *node) readBundles(ctx context.Context) (string, error) {
	if !n.boot.First {
		if err := n.fetchBundles(ctx); err != nil {
			return "", err
		}
	}
	bundles, errs := runes.LoadNode(control.BuiltinRunes, control.RunesFile)
	if err := ctx.Err(); err != nil {
		return "", err
	}
	n.bundles, n.broken = bundles, append(errs, n.mediumRunes...)
	note := ""
	if !n.boot.First {
		var err error
		if n.layer, err = n.fetchLive(ctx, ownerFile); err != nil {
			n.layerMissing = true
			n.log.Warn("the machine boots without what was added to the network", "error", err)
		}
		if h := n.layer.History; len(h) > 0 {
			note = fmt.Sprintf(", version %d of what was added since", h[0].Version)
		}
	}
	return fmt.Sprintf("%d read%s", len(n.bundles), note), nil
}

// fetchBundles saves the bundles of the boot host, also for the machines that this one
// may boot. The first node has saved those of its medium.
func (n *node) fetchBundles(ctx context.Context) error {
	tar, err := fetch(ctx, n.boot.Host, "runes.tar")
	if err != nil {
		return err
	}
	return durable.WriteFile(control.RunesFile, tar, 0o644)
}

// applyRunes lays the role bundles over the root.
func (n *node) applyRunes(ctx context.Context) (string, error) {
	layer := n.layer
	if len(layer.Runes) == 0 && n.boot.SavedNetwork != "" {
		var err error
		if layer, err = n.savedLive(savedDir(), ownerFile); err != nil {
			n.layerMissing = true
			n.log.Warn("the machine boots without what was added to the network", "error", err)
		}
	}
	bundles, err := runes.Without(n.bundles, n.settings.RunesOff)
	errs := append(slices.Clone(n.broken), err)
	bundles, settings, wrong := livechange.Over(bundles, n.settings.Runes, layer, nil)
	errs = append(errs, wrong...)
	bundles, err = runes.Configure(bundles, settings)
	errs = append(errs, err)
	applied := []string{}
	where, facts := runes.Target{Root: n.root, Run: "/run"}, n.facts()
	if facts.GraphicsDriver == "" && len(n.machine.Graphics) > 0 && runes.Uses(where, bundles, "GraphicsDriver") {
		facts.GraphicsDriver = n.driverInRoot(n.machine.Graphics[0].Modalias)
	}
	whole := len(n.broken) == 0 && len(wrong) == 0 && len(n.bundles) > 0 && !n.layerMissing // else @vrune locks whom it must
	errs = append(errs, runes.ApplyAccounts(ctx, where, bundles, facts, whole))
	results := runes.Apply(ctx, where, bundles, facts, n.log)
	errs = append(errs, control.WriteState(control.RunesBootFile, runeResults(bundles, results, n.broken)))
	for _, r := range results {
		switch r.Outcome {
		case runes.Applied:
			applied = append(applied, r.Rune)
		case runes.Degraded:
			errs = append(errs, fmt.Errorf("%s: %s", r.Rune, r.Reason))
		}
	}
	errs = append(errs, n.installCommand(), n.writeHostKey(), keepLive(n.layerData), n.startRunner(bundles, facts))
	return strings.Join(applied, ", "), errors.Join(errs...)
}

// runeResults is what became of the runes, those that could not be read among them.
func runeResults(bundles []runes.Bundle, results []runes.Result, unread []error) []control.RuneResult {
	list := []control.RuneResult{}
	for _, err := range unread {
		r := control.RuneOutcome{Outcome: string(runes.Broken), Reason: err.Error()}
		var broken *runes.BrokenError
		if errors.As(err, &broken) {
			r.Rune, r.Reason = broken.Rune, broken.Err.Error()
		}
		list = append(list, control.RuneResult{RuneOutcome: r})
	}
	for _, r := range results {
		x := control.RuneResult{RuneOutcome: control.RuneOutcome{Rune: r.Rune, Outcome: string(r.Outcome), Reason: r.Reason}, Files: r.Files}
		if i := slices.IndexFunc(bundles, func(b runes.Bundle) bool { return b.Name == r.Rune }); i >= 0 {
			x.Description = bundles[i].Description
		}
		list = append(list, x)
	}
	return list
}

// startRunner writes what @vrune reads, and has it begin at the handover if a rune asks
// for anything from then on.
func (n *node) startRunner(bundles []runes.Bundle, facts runes.Facts) error {
	start := live.Start{Facts: facts, Off: n.settings.RunesOff, Settings: n.settings.Runes}
	if len(n.layerData) > 0 {
		start.Layer, start.LayerNetwork = livelayer.PointTo(n.layerData).Digest, n.layerNetwork
	}
	err := live.WriteStart(filepath.Join(control.RunDir, live.StartFile), start)
	if err != nil || !slices.ContainsFunc(bundles, runes.Bundle.Lives) {
		return err
	}
	return durable.WriteFile(control.RunnerWantedFile, nil, 0o644)
}

// facts are the facts about this machine for runes.
func (n *node) facts() runes.Facts {
	f := runes.Facts{
		Hostname:       n.boot.Hostname,
		MachineID:      n.machine.ID(n.boot.MAC),
		Domain:         n.net.Lease.Domain,
		FirstNode:      n.boot.First,
		Interface:      n.boot.Interface,
		MAC:            n.boot.MAC,
		Address:        n.net.Lease.Address.Addr().String(),
		PrefixLength:   n.net.Lease.Address.Bits(),
		Netmask:        net.IP(net.CIDRMask(n.net.Lease.Address.Bits(), 32)).String(),
		AuthorizedKeys: n.settings.AuthorizedKeys,
		ConsoleLogin:   n.settings.ConsoleLogin,
		FirewallOpen:   n.settings.FirewallOpen,
		Init:           string(n.initSystem()),
		Network:        n.boot.SavedNetwork,
	}
	if n.net.Lease.Router.IsValid() {
		f.Gateway = n.net.Lease.Router.String()
	}
	for _, s := range n.net.Lease.DNS {
		f.DNS = append(f.DNS, s.String())
	}
	for _, s := range n.net.Lease.NTP {
		f.NTP = append(f.NTP, s.String())
	}
	for _, console := range n.cmdline.All("console") {
		if name, _, _ := strings.Cut(console, ","); strings.HasPrefix(name, "ttyS") {
			f.SerialConsoles = append(f.SerialConsoles, name)
		}
	}
	if len(n.machine.Graphics) > 0 {
		card := n.machine.Graphics[0]
		f.GraphicsBus = busID(card.PCI)
		f.GraphicsDriver = card.Driver
	}
	if _, err := os.Stat("/dev/fb0"); err == nil {
		f.Framebuffer = true
	}
	f.Members = []runes.MemberFact{{Hostname: f.Hostname, Address: f.Address, MAC: f.MAC, First: f.FirstNode, CPUs: runtime.NumCPU(), Memory: int(n.machine.Memory >> 20)}}
	private, public, err := sshkey.Generate("root@" + n.boot.Hostname)
	if err != nil {
		n.log.Warn("no SSH host key can be made", "error", err)
		return f
	}
	f.HostKey, f.HostKeyPublic = strings.Split(strings.TrimSpace(private), "\n"), public
	return f
}

// initSystem is what the root's init is going to be.
func (n *node) initSystem() initsystem.Kind {
	init, err := handover.FindInit(n.root, n.cmdline.Value("init"))
	if err != nil {
		return initsystem.Other // the handover says why
	}
	return initsystem.Of(n.root, init)
}

// driverInRoot returns the module that the distribution is going to load for a
// device. The initramfs carries no graphics drivers, the image does.
func (n *node) driverInRoot(modalias string) string {
	release, err := hardware.Release(n.host)
	if err != nil {
		return ""
	}
	driver, err := hardware.FindDriver(n.root, release, modalias)
	if err != nil {
		n.log.Info("no driver for the graphics card", "error", err)
	}
	return driver
}

// busID turns the kernel's PCI address (0000:00:02.0, hexadecimal) into Xorg's
// (PCI:0:2:0, decimal; xorg.conf(5), BusID). A card that is not on PCI has none.
func busID(pci string) string {
	var domain, bus, device, function int
	if _, err := fmt.Sscanf(pci, "%x:%x:%x.%x", &domain, &bus, &device, &function); err != nil {
		return ""
	}
	return fmt.Sprintf("PCI:%d:%d:%d", bus, device, function)
}

// installCommand makes the viver command available in the root: a bind mount of the
// busybox that has it, under that name.
func (n *node) installCommand() error {
	target := n.root + "/usr/local/bin/viver"
	if err := os.MkdirAll(n.root+"/usr/local/bin", 0o755); err != nil {
		return fmt.Errorf("install the viver command in the root: %w", err)
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return fmt.Errorf("install the viver command in the root: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("install the viver command in the root: %w", err)
	}
	return n.host.Mount("/bbin/bb", target, "", bindMount, "")
}
