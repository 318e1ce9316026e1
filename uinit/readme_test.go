package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// bootTable prints the stage list as README shows it.
func bootTable() string {
	var b strings.Builder
	b.WriteString("| # | stage | needs | does | when it fails |\n|---|---|---|---|---|\n")
	for i, s := range newNode().stages() {
		needs := strings.Join(s.needs, ", ")
		if s.onFirst != nil {
			needs += "; first node: " + strings.Join(s.onFirst, ", ")
		}
		if needs != "" {
			needs += " "
		}
		fmt.Fprintf(&b, "| %d | %s | %s| %s | %s |\n", i+1, s.name, needs, s.does, s.onFailure)
	}
	return b.String()
}

func TestREADMEShowsTheBoot(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), bootTable()) {
		t.Errorf("README.md does not show the boot list as it is:\n%s", bootTable())
	}
}
