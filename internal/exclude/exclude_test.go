package exclude

import (
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

func TestLeftOut(t *testing.T) {
	r, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"proc": false, "proc/1": true, "etc/ssh/ssh_host_rsa_key.pub": true, "etc/ssh/sshd_config": false,
		"home/anna/.cache": true, "home/anna/.config": false, "boot/initrd.img-6.1": true, "boot/vmlinuz-6.1": false,
		"var/log/journal/123": true, "var/log/journal": false, "swap.img": true, "usr/swapfile": false,
	} {
		if got := r.Match(name) != nil; got != want {
			t.Errorf("Match(%q) = %v", name, got)
		}
	}
	for _, rule := range leaveOut {
		for _, p := range rule.Patterns {
			if _, err := path.Match(p, "x"); err != nil || rule.Reason == "" {
				t.Errorf("pattern %q: %v, reason %q", p, err, rule.Reason)
			}
		}
	}
}

// TestImagesPageNamesEveryRule holds docs/images.md against the rules.
func TestImagesPageNamesEveryRule(t *testing.T) {
	page, err := os.ReadFile("../../docs/images.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range append(slices.Clone(leaveOut), Emptied) {
		if !strings.Contains(string(page), rule.Reason) {
			t.Errorf("no word of %q", rule.Reason)
		}
		for _, p := range rule.Patterns {
			if !strings.Contains(string(page), "`/"+p+"`") {
				t.Errorf("no word of /%s", p)
			}
		}
	}
}

// TestRulesThatKeepDoesNotLift asks for what nobody gets.
func TestRulesThatKeepDoesNotLift(t *testing.T) {
	r, err := New([]string{"/", "*", "root/.config/viver/*", "proc"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"root/.config/viver/owner.key": true, "proc/1": true, "tmp/x": false, "root/.ssh/id_rsa": false} {
		if rule, _ := r.Out(name); (rule != nil) != want {
			t.Errorf("%s: %v", name, rule)
		}
	}
	if _, err := New([]string{"["}); err == nil {
		t.Error("a bad pattern")
	}
}
