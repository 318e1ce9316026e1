package main

import (
	"errors"
	"strings"
	"testing"

	"viver.lan/internal/control"
)

func TestDoctorsVerdict(t *testing.T) {
	checks := []control.Check{
		{Name: "boot link", State: control.CheckOK, Text: "eth0"},
		{Name: "firewall", State: control.CheckOff, Text: "off"},
		{Name: "name servers", State: control.CheckWarning, Text: "none"},
	}
	if err := verdict(checks); err != nil {
		t.Errorf("a warning: %v", err)
	}
	checks = append(checks, control.Check{Name: "pieces", State: control.CheckFailed, Text: "gone"})
	if err := verdict(checks); !errors.Is(err, errUnhealthy) || !strings.Contains(err.Error(), "pieces") {
		t.Errorf("a failed check: %v", err)
	}
	var b strings.Builder
	if err := writeChecks(&b, checks); err != nil || !strings.Contains(b.String(), "failed   pieces        gone\n") {
		t.Errorf("%v, printed\n%s", err, &b)
	}
}
