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
		"srv/lab/anna/.netrc": true, "home/dom/anna/.aws/credentials": true, "home/anna/aws/credentials": false, "root/.python_history": true,
		"home/anna/.mozilla/firefox/x.default/key4.db": true, "etc/pki/nssdb/key4.db": false, "etc/http.keytab": true, "usr/share/doc/x.p12": false, "usr/local/x.p12": true, "usr/local/share/keyrings": false, "home/anna/.local/share/keyrings": true, ".netrc": true,
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

// A name with the signs of patterns matches itself only.
func TestLiteral(t *testing.T) {
	for name, other := range map[string]string{`/srv/a[1]`: "srv/a1", `/srv/a*`: "srv/ab", `/srv/a?`: "srv/ab", `/srv/a\*`: "srv/a*", `/srv/a]^-`: "srv/a"} {
		r, err := New(&Choice{Exclude: []string{Literal(name)}})
		if err != nil {
			t.Fatal(err)
		}
		if r.Match(name[1:]) != Chosen || r.Match(other) != nil {
			t.Errorf("%s matches itself: %v; matches %s: %v", Literal(name), r.Match(name[1:]), other, r.Match(other))
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
		for _, p := range rule.Anywhere {
			if !strings.Contains(string(page), "`"+p+"`") {
				t.Errorf("no word of %s", p)
			}
		}
	}
}

// TestRulesThatKeepDoesNotLift asks for what nobody gets.
func TestRulesThatKeepDoesNotLift(t *testing.T) {
	r, err := New(&Choice{Keep: []string{"/", "*", "root/.config/viver/*", "proc"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"root/.config/viver/owner.key": true, "proc/1": true, "tmp/x": false, "root/.ssh/id_rsa": false} {
		if rule, _ := r.Out(name); (rule != nil) != want {
			t.Errorf("%s: %v", name, rule)
		}
	}
	for _, bad := range []Choice{{Keep: []string{"["}}, {Exclude: []string{"["}}, {Exclude: []string{"/"}}} {
		if _, err := New(&bad); err == nil {
			t.Errorf("took %q", bad)
		}
	}
}

func TestParsePatterns(t *testing.T) {
	got := ParsePatterns("# what a lab does not need\n/srv/*\r\n\n  var/lib/my files \n#/home\n/last")
	if want := []string{"/srv/*", "var/lib/my files", "/last"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

// TestChoice has what is kept in what is left out, and the reverse.
func TestChoice(t *testing.T) {
	r, err := New(&Choice{
		Exclude: []string{"/home", "srv/*", "opt/a/b", "/root/.config", "proc", "usr/share/doc/*", "/var/mistyped"},
		Keep:    []string{"home/anna", "/srv/data/", "opt/a", "root/.config/viver/*.key", "proc/1/environ", "usr/share/doc/x"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]*Rule{
		"home": Chosen, "home/bert/x": Chosen, "home/anna": nil, "home/anna/deep/file": nil,
		"home/anna/.cache": nil, // kept as before, in spite of the rule about caches
		"srv":              nil, "srv/data/x": Chosen, "srv/x": Chosen,
		"opt/a/x": nil, "opt/a/b/x": Chosen, "opt/b": nil,
		"root/.config/x": Chosen, "usr/share/doc": nil, "usr/share/doc/x": Chosen,
	} {
		if rule, _ := r.Out(name); rule != want {
			t.Errorf("%s: %+v", name, rule)
		}
	}
	// What nobody gets is not had by way of what one leaves out oneself.
	for _, name := range []string{"root/.config/viver/owner.key", "proc/1/environ"} {
		if rule, _ := r.Out(name); rule == nil || !rule.Always {
			t.Errorf("%s: %+v", name, rule)
		}
	}
	if got := r.Unmatched(); !slices.Equal(got, []string{"var/mistyped"}) {
		t.Errorf("no match for %q", got)
	}
}

// TestKeepWithinExclude has secrets where --keep only says what of an --exclude stays.
func TestKeepWithinExclude(t *testing.T) {
	const guest = "home/guest"
	for _, c := range []struct {
		exclude, keep []string
		name          string
		out           bool
		named         bool // as a secret that is in the image
		content       bool // a file of that name stays out when its content is a key
	}{
		{[]string{"/home"}, []string{"/home/guest"}, guest + "/.ssh/id_rsa", true, false, true},
		{[]string{"/home"}, []string{"/home/guest"}, guest + "/.gnupg", true, false, true},
		{[]string{"/home"}, []string{"/home/guest"}, guest + "/.gnupg/a/b", true, false, true},
		{[]string{"/home"}, []string{"/home/guest"}, guest + "/text", false, false, true},
		{[]string{"/home"}, []string{"/home/guest"}, guest + "/.cache/x", false, false, true},
		{[]string{"/home"}, []string{"/home/guest", "/home/guest/.ssh/id_*"}, guest + "/.ssh/id_rsa", false, true, false},
		{[]string{"/home"}, []string{"/home/guest/text"}, guest + "/text", false, false, false},
		{[]string{"/home"}, []string{"/home/guest/.gnupg"}, guest + "/.gnupg", false, true, false},
		{[]string{"/home"}, []string{"/home/guest/.gnupg"}, guest + "/.gnupg/a/x.p12", false, false, false},
		{[]string{"/home"}, []string{"/home/guest/.gnupg/a"}, guest + "/.gnupg/a/b", false, false, false},
		{[]string{"/home"}, []string{"/home/guest/.gnupg/a"}, guest + "/.gnupg/a", false, true, false},
		{[]string{"/srv"}, []string{"/home/guest"}, guest + "/.ssh/id_rsa", false, true, false},
		{[]string{"/srv"}, []string{"/home/guest"}, guest + "/.gnupg/a", false, false, false},
		{nil, nil, guest + "/.ssh/id_rsa", true, false, true},
	} {
		r, err := New(&Choice{Exclude: c.exclude, Keep: c.keep})
		if err != nil {
			t.Fatal(err)
		}
		if rule, _ := r.Out(c.name); (rule != nil) != c.out {
			t.Errorf("--exclude %q --keep %q: %s: %+v", c.exclude, c.keep, c.name, rule)
		}
		if got := r.KeepsSecret(c.name); got != c.named {
			t.Errorf("--exclude %q --keep %q: %s is kept as a secret: %v", c.exclude, c.keep, c.name, got)
		}
		if got := r.Applies(PrivateKey, c.name); got != c.content {
			t.Errorf("--exclude %q --keep %q: a key in %s is left out: %v", c.exclude, c.keep, c.name, got)
		}
	}
}
