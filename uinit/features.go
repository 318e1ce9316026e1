package main

import (
	"slices"

	"viver.lan/internal/disks"
	"viver.lan/internal/hardware"
	"viver.lan/internal/roles"
)

// graphicsMakers are the PCI vendors whose graphics cards compute: AMD, NVIDIA, Intel. A
// server's console and a virtual machine's screen are cards, too.
var graphicsMakers = []string{"1002", "10de", "8086"}

// features are what the machine has of roles.Features, in their order. Of the saved-data
// disks that can be written the first is used.
func features(m hardware.Machine, saved []disks.Found, cache, clock bool) (found []string) {
	has := map[string]bool{
		roles.SavedData: len(saved) > 0,
		roles.Homes:     len(saved) > 0 && saved[0].Homes,
		roles.Cache:     cache,
		roles.GPU:       slices.ContainsFunc(m.Graphics, func(g hardware.Graphics) bool { return slices.Contains(graphicsMakers, g.Vendor) }),
		roles.KVM:       m.KVM,
		roles.Clock:     clock,
	}
	for _, f := range roles.Features() {
		if has[f] {
			found = append(found, f)
		}
	}
	return found
}
