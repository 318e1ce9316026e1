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
	b.WriteString("| # | stage | does | when it fails |\n|---|---|---|---|\n")
	for i, s := range newNode().stages() {
		fmt.Fprintf(&b, "| %d | %s | %s | %s |\n", i+1, s.name, s.does, s.onFailure)
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
