package netguard

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"viver.lan/internal/bootnet"
)

// Routes and rules that somebody lays over the boot network, as VPNs do, must not
// lead the root disk's traffic elsewhere. So the machine's own traffic to the boot
// network is looked up first in a table of ours, which holds that one route. What
// the machine forwards for others is not concerned.
const (
	policyTable    = 6881
	policyPriority = 1 // the kernel's own table of local addresses is at 0
)

// keepPolicyRoute keeps the machine's own traffic to its boot network on a link.
func keepPolicyRoute(index int, address netip.Prefix) error {
	if address.Bits() == 32 {
		return nil // there is no network to speak of
	}
	if err := policyRoute(index, address); err != nil {
		return err
	}
	return policyRule(address)
}

func policyRoute(index int, address netip.Prefix) error {
	want := connectedRoute(index, address)
	want.Table = policyTable
	found, err := netlink.RouteListFiltered(netlink.FAMILY_V4, want, netlink.RT_FILTER_TABLE)
	if err != nil {
		return fmt.Errorf("list routes of table %d: %w", policyTable, err)
	}
	for _, r := range found {
		if bootnet.PrefixOf(r.Dst) == address.Masked() && r.LinkIndex == index && bootnet.Addr(r.Src) == address.Addr() {
			return nil
		}
	}
	for _, r := range found { // of an address that we had before
		if bootnet.PrefixOf(r.Dst) != address.Masked() {
			_ = netlink.RouteDel(&r) // it is no harm, and tried again
		}
	}
	if err := netlink.RouteReplace(want); err != nil {
		return fmt.Errorf("set the policy route to %s: %w", address.Masked(), err)
	}
	return nil
}

func policyRule(address netip.Prefix) error {
	found, err := netlink.RuleListFiltered(netlink.FAMILY_V4, &netlink.Rule{Table: policyTable}, netlink.RT_FILTER_TABLE)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil // a kernel without policy routing has no rules of others either
	}
	if err != nil {
		return fmt.Errorf("list routing rules: %w", err)
	}
	there := false
	for _, r := range found {
		if bootnet.PrefixOf(r.Dst) == address.Masked() && r.Priority == policyPriority && r.IifName == "lo" {
			there = true
			continue
		}
		_ = netlink.RuleDel(&r) // of an address that we had before
	}
	if there {
		return nil
	}
	rule := netlink.NewRule()
	rule.Family, rule.Priority, rule.Table = netlink.FAMILY_V4, policyPriority, policyTable
	rule.Dst = bootnet.IPNet(address.Masked())
	rule.IifName = "lo" // what this machine sends itself
	// Network managers clear away rules that are not theirs, but none of the kernel's.
	rule.Protocol = unix.RTPROT_KERNEL
	if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("set the rule for the policy route to %s: %w", address.Masked(), err)
	}
	return nil
}

// enterVRF lets sockets that know nothing of a VRF use the address in it: the
// kernel has moved what it knows of the address into the VRF's table.
func enterVRF(index int, address netip.Addr) error {
	var errs []error
	for _, knob := range []string{"tcp_l3mdev_accept", "udp_l3mdev_accept"} {
		errs = append(errs, os.WriteFile("/proc/sys/net/ipv4/"+knob, []byte("1"), 0))
	}
	errs = append(errs, netlink.RouteReplace(&netlink.Route{LinkIndex: index, Dst: bootnet.IPNet(netip.PrefixFrom(address, 32)),
		Src: address.AsSlice(), Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Protocol: unix.RTPROT_KERNEL, Table: unix.RT_TABLE_LOCAL}))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("use %s in a VRF: %w", address, err)
	}
	return nil
}
