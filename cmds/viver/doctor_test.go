package main

import (
	"errors"
	"strings"
	"testing"
)

func TestDoctorsVerdict(t *testing.T) {
	checks := []check{
		{Name: "boot link", State: checkOK, Text: "eth0"},
		{Name: "firewall", State: checkOff, Text: "off"},
		{Name: "name servers", State: checkWarning, Text: "none"},
	}
	if err := verdict(checks); err != nil {
		t.Errorf("a warning: %v", err)
	}
	checks = append(checks, check{Name: "pieces", State: checkFailed, Text: "gone"})
	if err := verdict(checks); !errors.Is(err, errUnhealthy) || !strings.Contains(err.Error(), "pieces") {
		t.Errorf("a failed check: %v", err)
	}
	var b strings.Builder
	if err := writeChecks(&b, checks); err != nil || !strings.Contains(b.String(), "failed   pieces        gone\n") {
		t.Errorf("%v, printed\n%s", err, &b)
	}
}
