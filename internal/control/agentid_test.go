package control

import "testing"

func TestMapped(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       bool
	}{
		{"the whole machine", "         0          0 4294967295\n", true},
		{"one user only", "         0       1000          1\n", false},
		{"what a container has", "0 1000 1\n1 100000 65536\n", true},
		{"just too few", "0 0 65521\n", false},
		{"just enough", "0 0 65522\n", true},
		{"nobody", "", false},
	} {
		if got := mapped(c.text, AgentID); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
