package operator

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"viver.lan/internal/ether"
)

func TestMachines(t *testing.T) {
	one, two, three := ether.MAC{0x52, 0x54, 5: 1}, ether.MAC{0x52, 0x54, 5: 2}, ether.MAC{0x52, 0x54, 5: 3}
	got, wrong := Machines([]Override{
		{Key: NameOf(one), Value: "lab-1"},
		{Key: AddressOf(one), Value: "10.0.0.7"},
		{Key: AddressOf(two), Value: "10.0.0.8"},
		{Key: NameOf(two), Value: "two lab"},
		{Key: NameOf(three)}, // taken back
		{Key: AddressOf(three), Value: "fe80::1"},
		{Key: LabelsOf(one), Value: "web,storage,web"},
		{Key: LabelsOf(two), Value: "web,,"},
		{Key: PinOf("a/b"), Value: one.String()},
		{Key: NameOf(one) + "x", Value: "lab-2"}, // of no machine
		{Key: "image/" + three.String(), Value: "of a later version"},
	})
	want := map[ether.MAC]Machine{
		one: {"lab-1", netip.MustParseAddr("10.0.0.7"), []string{"storage", "web"}},
		two: {"", netip.MustParseAddr("10.0.0.8"), nil},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("machines: %v, want %v", got, want)
	}
	if len(wrong) != 3 || !strings.Contains(wrong[0].Error(), NameOf(two)) || !strings.Contains(wrong[1].Error(), three.String()) || !strings.Contains(wrong[2].Error(), LabelsOf(two)) {
		t.Errorf("left out: %v", wrong)
	}
}

func TestPins(t *testing.T) {
	one, two := ether.MAC{0x52, 0x54, 5: 1}, ether.MAC{0x52, 0x54, 5: 2}
	got, wrong := Pins([]Override{
		{Key: PinOf("a/b"), Value: JoinMACs([]ether.MAC{one, two})},
		{Key: PinOf("a/c")}, // taken back
		{Key: PinOf("a/d"), Value: one.String() + ",lab-2"},
		{Key: NameOf(one), Value: "lab-1"},
	})
	if want := map[string][]ether.MAC{"a/b": {one, two}}; !reflect.DeepEqual(got, want) {
		t.Errorf("pins: %v, want %v", got, want)
	}
	if len(wrong) != 1 || !strings.Contains(wrong[0].Error(), PinOf("a/d")) {
		t.Errorf("left out: %v", wrong)
	}
}

func TestParseLabels(t *testing.T) {
	for s, want := range map[string]string{"a": "a", "b,a,b": "a b", "rack-2": "rack-2", "": "", ",": "", "a,": "", "A": "", "a b": "", "-a": "", "a/b": ""} {
		got, err := ParseLabels(s)
		if strings.Join(got, " ") != want || (err == nil) != (want != "") {
			t.Errorf("labels %q: %q, %v", s, got, err)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for address, ok := range map[string]bool{
		"10.0.0.7": true, "192.168.1.255": true,
		"": false, "10.0.0": false, "10.0.0.7/24": false, "10.0.0.07": false, "lab": false, "::1": false, "::ffff:10.0.0.7": false,
		"0.0.0.0": false, "127.0.0.1": false, "224.0.0.1": false, "255.255.255.255": false,
	} {
		if _, err := ParseAddress(address); (err == nil) != ok {
			t.Errorf("address %q: %v", address, err)
		}
	}
}
