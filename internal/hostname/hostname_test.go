package hostname

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	label := strings.Repeat("a", maxLabel)
	domain := strings.Repeat(label+".", 3) + label[:maxDomain-3*(maxLabel+1)]
	for _, tt := range []struct {
		name         string
		host, domain bool
	}{
		{"a", true, true}, {"lab-07", true, true}, {"LAB7", true, true}, {"7", true, true}, {label, true, true},
		{"", false, false}, {"-a", false, false}, {"a-", false, false}, {"-", false, false}, {label + "a", false, false},
		{"a_b", false, false}, {"ä", false, false}, {"a;b", false, false}, {"a b", false, false}, {"a\n", false, false}, {"a\x00", false, false},
		{"lab.example", false, true}, {"lab-07.example", false, true}, {domain, false, true},
		{domain + "a", false, false}, {"lab.", false, false}, {".lab", false, false}, {"a..b", false, false}, {"a-.b", false, false}, {".", false, false},
	} {
		if err := Check(tt.name); (err == nil) != tt.host {
			t.Errorf("host %q: %v", tt.name, err)
		}
		if err := CheckDomain(tt.name); (err == nil) != tt.domain {
			t.Errorf("domain %q: %v", tt.name, err)
		}
	}
}

func TestDefault(t *testing.T) {
	got := Default(DefaultPrefix, "52:54:00:aa:bb:01")
	if err := Check(got); got != "node-525400aabb01" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
