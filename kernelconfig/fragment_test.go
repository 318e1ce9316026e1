package kernelconfig

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The kernel of `./build.sh kernel` has all built in that may be a module elsewhere. That
// Debian's kernel takes each line, its own rules say (TestFullKernelConfig).
func TestFragmentHasAllBuiltIn(t *testing.T) {
	text, err := os.ReadFile("../images/kernel/fragment")
	if err != nil {
		t.Fatal(err)
	}
	fragment, err := ParseConfig(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	options, err := Options()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range options {
		if has, asModule := fragment.Has(o); o.Need == Module && (!has || asModule) {
			t.Errorf("images/kernel/fragment lacks %s=y: %s", o, o.Reason)
		}
	}
	line := regexp.MustCompile(`^(CONFIG_(\w+)=y|# CONFIG_(\w+) is not set)$`)
	seen := map[string]bool{}
	for text := range strings.Lines(string(text)) {
		text = strings.TrimSpace(text)
		if text == "" || strings.HasPrefix(text, "# ") && !strings.HasPrefix(text, "# CONFIG_") {
			continue
		}
		m := line.FindStringSubmatch(text)
		if m == nil {
			t.Errorf("images/kernel/fragment has the line %q", text)
			continue
		}
		if name := m[2] + m[3]; seen[name] {
			t.Errorf("images/kernel/fragment has %s twice", name)
		} else {
			seen[name] = true
		}
	}
}
