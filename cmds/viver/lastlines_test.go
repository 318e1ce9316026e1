//go:build !node

package main

import (
	"strings"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/event"
)

// A log is shown by its last lines, whole ones.
func TestLastLines(t *testing.T) {
	var l lastLines
	if l.String() != "" {
		t.Error("something of nothing")
	}
	for range 3 * shownLogs {
		_, _ = l.Write([]byte("a line\n"))
	}
	_, _ = l.Write([]byte("the last\nhalf"))
	if got, want := l.String(), strings.Repeat("a line\n", shownLogs-1)+"the last\n"; got != want {
		t.Errorf("%q", got)
	}
}

// The operator is told what becomes of the machines before the server ends.
func TestFarewell(t *testing.T) {
	alone, two := &control.Status{Members: make([]control.Member, 1)}, &control.Status{Members: make([]control.Member, 2)}
	free := &control.Status{Members: make([]control.Member, 2), Independence: event.Independence{Independent: true}}
	for want, s := range map[string]*control.Status{"no machine runs from it": alone, "machines stop": two, "go on without it": free} {
		if got := farewell(s); !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
