package main

import (
	"strings"
	"testing"

	"viver.lan/internal/disks"
	"viver.lan/internal/hardware"
)

func TestFeatures(t *testing.T) {
	card := func(vendor string) hardware.Graphics { return hardware.Graphics{Vendor: vendor} }
	for _, test := range []struct {
		machine      hardware.Machine
		saved        []disks.Found
		cache, clock bool
		want         string
	}{
		{want: ""},
		{machine: hardware.Machine{Graphics: []hardware.Graphics{card("1234"), card("1a03"), {Card: "card0"}}}, want: ""}, // QEMU, a server's console
		{machine: hardware.Machine{Graphics: []hardware.Graphics{card("1234"), card("10de")}, KVM: true}, want: "gpu kvm"},
		{machine: hardware.Machine{KVM: true}, saved: []disks.Found{{}, {Homes: true}}, cache: true, want: "saved-data cache kvm"},
		{saved: []disks.Found{{Homes: true}}, want: "saved-data homes"},
		{clock: true, want: "clock"},
	} {
		if got := strings.Join(features(test.machine, test.saved, test.cache, test.clock), " "); got != test.want {
			t.Errorf("%+v has %q, want %q", test, got, test.want)
		}
	}
}
