package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/upper"
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

func TestLargestFilesAreShown(t *testing.T) {
	now := time.Now()
	u := &upper.Usage{Bytes: 1_500_000, Files: 12, Skipped: 1,
		Largest: []upper.File{{Path: "/var/log/a\x1b[2Jb", Bytes: 1_200_000, Changed: now.Add(-90 * time.Second)}, {Path: "/later", Changed: now.Add(time.Hour)}},
		Fullest: []upper.Folder{{Path: "/var/tmp", Files: 7}}}
	var b strings.Builder
	if err := writeUsage(&b, u, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"12 files and directories, 1.5 MB\n", "1 could not be read", "1.2  1m30s ago  \"/var/log/a\\x1b[2Jb\"\n", "0s ago", "7        \"/var/tmp\"\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
