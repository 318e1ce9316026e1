package main

import (
	"slices"

	"viver.lan/internal/hardware"
	"viver.lan/internal/roles"
)

// graphicsMakers are the PCI vendors whose graphics cards compute: AMD, NVIDIA, Intel. A
// server's console and a virtual machine's screen are cards, too.
var graphicsMakers = []string{"1002", "10de", "8086"}

// features are what the machine has of roles.Features, in their order.
func features(m hardware.Machine, savedData, cache bool) (found []string) {
	has := map[string]bool{
		roles.SavedData: savedData,
		roles.Cache:     cache,
		roles.GPU:       slices.ContainsFunc(m.Graphics, func(g hardware.Graphics) bool { return slices.Contains(graphicsMakers, g.Vendor) }),
		roles.KVM:       m.KVM,
	}
	for _, f := range roles.Features() {
		if has[f] {
			found = append(found, f)
		}
	}
	return found
}
