package main

import (
	"errors"
	"slices"
	"testing"

	"viver.lan/internal/hardware"
)

func TestLackingNamesWhatANetworkNeeds(t *testing.T) {
	got := lackingOf([]hardware.Device{
		{Kind: hardware.KindNetwork, Bus: "pci", Address: "0000:02:00.0", ID: "10ec:8168", Name: "Realtek", Missing: []string{"no driver runs it"}},
		{Kind: hardware.KindGraphics, Bus: "pci", Address: "0000:01:00.0", ID: "10de:1c82", Missing: []string{"no driver runs it"}},
		{Kind: hardware.KindStorage, Bus: "pci", Address: "0000:03:00.0", ID: "144d:a808", Slow: []string{"narrow"}},
	})
	if want := []string{"network 10ec:8168 Realtek at pci 0000:02:00.0: no driver runs it"}; !slices.Equal(got, want) {
		t.Errorf("said %q, want %q", got, want)
	}
	cause := errors.New("no network card within the deadline")
	err := withLacking(cause, got)
	if !errors.Is(err, cause) || err.Error() != cause.Error()+"; "+got[0] {
		t.Errorf("the error is %q", err)
	}
	if n := new(node); withLacking(cause, n.lacking()) != cause || withLacking(nil, n.lacking()) != nil {
		t.Error("an error of a machine that nothing is known of has changed")
	}
}
