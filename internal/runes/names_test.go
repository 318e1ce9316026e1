package runes

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// relay lays the files of one built-in rune again, as after a change of the facts.
func relay(t *testing.T, where Target, rune string, f Facts) {
	t.Helper()
	bundles := slices.DeleteFunc(builtins(t), func(b Bundle) bool { return b.Name != rune })
	if r := apply(t, where, bundles, f)[rune]; r.Outcome != Applied {
		t.Fatalf("%+v", r)
	}
}

func TestNamesOfMembers(t *testing.T) {
	where := image(t, map[string]string{"etc/hosts": "127.0.0.1 localhost\n10.0.0.7 printer # 2nd floor\n# 10.0.0.8 node-5 has moved\n"})
	f := testFacts()
	apply(t, where, builtins(t), f)
	const others = "127.0.0.1 localhost\n10.0.0.7 printer # 2nd floor\n# 10.0.0.8 node-5 has moved\n"
	const own = "10.77.3.4\tnode-1a2b.lab.example node-1a2b\t# viver\n"
	self := MemberFact{Hostname: "node-1a2b", Address: "10.77.3.4"}
	for _, step := range []struct {
		what    string
		members []MemberFact
		want    string
	}{
		{"alone", []MemberFact{self}, own},
		{"not known to be a member", nil, own},
		{"one comes", []MemberFact{self, {Hostname: "node-5", Address: "10.77.0.5"}}, own + "10.77.0.5\tnode-5.lab.example node-5\t# viver\n"},
		{"it is renamed and moves", []MemberFact{self, {Hostname: "node", Address: "10.77.0.6"}}, own + "10.77.0.6\tnode.lab.example node\t# viver\n"},
		{"one has the name of somebody else", []MemberFact{self, {Hostname: "printer", Address: "10.77.0.9"}, {Hostname: "localhost", Address: "10.77.0.9"}}, own},
		{"it goes", []MemberFact{self}, own},
	} {
		f.Members = step.members
		for range 2 { // the second changes nothing
			relay(t, where, "names", f)
			if got := read(t, where, "/etc/hosts"); got != others+step.want {
				t.Errorf("%s: %q, want %q", step.what, got, others+step.want)
			}
		}
	}
	// With saved data, the next boot begins with this machine only.
	f.Members = []MemberFact{self, {Hostname: "node-5", Address: "10.77.0.5"}}
	relay(t, where, "names", f)
	f.Members, f.Hostname, f.Domain = nil, "lathe", ""
	apply(t, where, builtins(t), f)
	if got, want := read(t, where, "/etc/hosts"), others+"10.77.3.4\tlathe\t# viver\n"; got != want {
		t.Errorf("the next boot: %q, want %q", got, want)
	}
}

// A link to another file becomes a file with that one's content and ours: what the
// link leads to may belong to another program.
func TestNamesWhereHostsIsALink(t *testing.T) {
	where := image(t, map[string]string{"etc/hosts": "->static/hosts", "etc/static/hosts": "::1 localhost\n10.0.0.7 printer\n"})
	apply(t, where, builtins(t), testFacts())
	if got := read(t, where, "/etc/hosts"); !strings.Contains(got, "printer") || !strings.Contains(got, "10.77.3.4\tnode-1a2b") {
		t.Errorf("%q", got)
	}
	if got := read(t, where, "/etc/static/hosts"); strings.Contains(got, "viver") {
		t.Errorf("the link was written through: %q", got)
	}
}

// The programs that resolve names read what we write: by name, by name with domain, and
// by address.
func TestNetnsNamesAreResolved(t *testing.T) {
	where := image(t, map[string]string{"etc/hosts": "127.0.0.1 localhost\n"})
	f := testFacts()
	f.Members = []MemberFact{{Hostname: "node-5", Address: "10.77.0.5"}}
	relay(t, where, "names", f)
	// getent reads its own root's file.
	script := `mount --bind "$1" /etc/hosts && for n in node-5 node-5.lab.example 10.77.0.5 node-1a2b; do getent hosts "$n"; done`
	out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "--map-root-user", "sh", "-c", script, "-", filepath.Join(where.Root, "etc/hosts")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for want, times := range map[string]int{"10.77.0.5       node-5.lab.example node-5\n": 3, "10.77.3.4       node-1a2b.lab.example node-1a2b\n": 1} {
		if n := strings.Count(string(out), want); n != times {
			t.Errorf("%d times %q, want %d: %s", n, want, times, out)
		}
	}
}
