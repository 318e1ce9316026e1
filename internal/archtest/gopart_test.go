package archtest

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// heavy are packages that programs of the initramfs do without, each with the reason. Every
// machine fetches these programs before it boots, and each start of one of them begins
// with what all packages in the busybox do on import.
var heavy = []struct{ program, without, why string }{
	{"uinit", module + "internal/boothost", "it needs nothing of what a boot host serves"},
	{"uinit", module + "internal/swarm", "the block daemon fetches, in a process of its own"},
	{"cmds/viver", module + "internal/imagebuild", "a booted machine builds no images: file has //go:build !node"},
	{"cmds/viver", module + "internal/trialboot", "nor does it profile them"},
	{"", "github.com/prometheus", "it brings protobuf; internal/metrics counts"},
	{"", "google.golang.org/protobuf", "0.4 MB of what every machine fetches"},
	{"", "testing", "for tests"},
}

func TestTheGoPartHasNothingHeavy(t *testing.T) {
	for _, program := range []string{"uinit", "cmds/vfield", "cmds/viverd", "cmds/viver"} {
		list := exec.Command("go", "list", "-tags", "node", "-deps", module+program)
		out, err := list.Output()
		if err != nil {
			t.Fatal(err)
		}
		packages := strings.Fields(string(out))
		if len(packages) < 100 {
			t.Fatalf("%s has %d packages; the rule would hold for nothing", program, len(packages))
		}
		for _, h := range heavy {
			for _, p := range packages {
				if (h.program == "" || h.program == program) && (p == h.without || strings.HasPrefix(p, h.without+"/")) {
					t.Errorf("%s imports %s, if by others (go list -deps): %s", program, p, h.why)
				}
			}
		}
	}
}

// Go's template packages call methods by names that they read at run time. Whoever uses
// them has the linker keep each exported method of each type: an eighth of the Go part.
func TestTemplatesCallNoMethods(t *testing.T) {
	for _, f := range sources(t) {
		if f.isTest() {
			continue
		}
		for _, spec := range f.ast.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if p == "text/template" || p == "html/template" {
				t.Errorf("%s/%s imports %s, for which the linker keeps every method: use github.com/DataDog/datadog-agent/pkg/template, which is the same but for calls of methods", f.dir, f.name, p)
			}
		}
	}
}
