package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestLicensesAreListed holds docs/licenses.md to what the programs import.
func TestLicensesAreListed(t *testing.T) {
	text, err := os.ReadFile("../../docs/licenses.md")
	if err != nil {
		t.Fatal(err)
	}
	list := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}",
		"viver.lan/uinit", "viver.lan/cmds/vfield", "viver.lan/cmds/viverd", "viver.lan/cmds/viver", "viver.lan/images/tiny/init",
		"github.com/u-root/u-root/cmds/core/gosh")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	missing := make(map[string]bool)
	for _, module := range strings.Fields(string(out)) {
		if module != "viver.lan" && !strings.Contains(string(text), "`"+module+"`") {
			missing[module] = true
		}
	}
	for module := range missing {
		t.Errorf("%s is part of our programs: look up its licence and add it to docs/licenses.md", module)
	}
}
