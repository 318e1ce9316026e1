package roles

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	if n, err := ParseName("compile/scheduler"); err != nil || n != (Name{"compile", "scheduler"}) {
		t.Errorf("%v, %v", n, err)
	}
	for _, s := range []string{"", "a", "/", "a/", "/b", "a/b/c", "A/b", "a b/c", "-a/b", "a/b-", "a/\x1b", strings.Repeat("a", maxRune+1) + "/b", "a/" + strings.Repeat("b", maxRole+1)} {
		if n, err := ParseName(s); err == nil {
			t.Errorf("%q is read as %v", s, n)
		}
	}
}

func TestParseCount(t *testing.T) {
	for s, of10 := range map[string]int{"one": 1, "first": 1, "3": 3, "12": 10, "all": 10, "others": 10, "most": 6, "50%": 5, "41%": 5, "1%": 1, "100%": 10} {
		c, err := ParseCount(s)
		if err != nil || c.String() != s || c.of(10) != of10 || c.of(0) != 0 {
			t.Errorf("%q: %v of 10 are %d, want %d; of none %d; %v", s, c, c.of(10), of10, c.of(0), err)
		}
	}
	if c, err := ParseCount("1"); err != nil || c.String() != "one" {
		t.Errorf("1 is %v, %v", c, err)
	}
	for _, s := range []string{"", "0", "-1", "+1", "01", "two", "One", "0%", "101%", "50 %", "%", "10000", "1.5", "99999999999999999999"} {
		if c, err := ParseCount(s); err == nil {
			t.Errorf("%q is read as %v", s, c)
		}
	}
}

func TestParseNeed(t *testing.T) {
	node := Node{Memory: 7800 << 20, CPUs: 4, Features: []string{SavedData}, Labels: []string{"storage"}, MAC: [6]byte{2, 0, 0, 0, 0, 1}}
	for s, met := range map[string]bool{
		"memory >= 8G": true, "memory >= 9G": false, "memory >= 512M": true, "memory >= 1T": false,
		"cpus >= 4": true, "cpus >= 5": false, "has saved-data": true, "has gpu": false,
		"label storage": true, "label web": false, "mac 02:00:00:00:00:01": true, "mac 02:00:00:00:00:02": false,
	} {
		n, err := ParseNeed(s)
		if err != nil || n.String() != s || n.metBy(node) != met {
			t.Errorf("%q is read as %q, met: %t, want %t; %v", s, n, n.metBy(node), met, err)
		}
	}
	if n, err := ParseNeed("memory >= 2048M"); err != nil || n.String() != "memory >= 2G" {
		t.Errorf("2048M is %v, %v", n, err)
	}
	for _, s := range []string{
		"", "memory", "memory > 8G", "memory >= 8", "memory >= 0G", "memory >= 5000G", "memory >= -1G", "cpus >= 0", "cpus >= 65536", "cpus >= 4G",
		"has disk", "has", "label A", "label a b", "mac", "mac 1", "mac 00:00:00:00:00:00", "mac 52:54:00:12:34:56:78:9a", "name x", "memory >= 8G cpus >= 4",
	} {
		if n, err := ParseNeed(s); err == nil {
			t.Errorf("%q is read as %v", s, n)
		}
	}
}

func TestOfferAsJSON(t *testing.T) {
	const text = `{"name":"nfs/server","wants":"one","needs":["memory \u003e= 8G","has saved-data"],"bound":"saved-data"}`
	var o Offer
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	if back, err := json.Marshal(o); err != nil || string(back) != text {
		t.Errorf("%s came back as %s, %v", text, back, err)
	}
}

func TestCheckClaims(t *testing.T) {
	names := func(s string) (names []Name) {
		for _, f := range strings.Fields(s) {
			bundle, role, _ := strings.Cut(f, "/")
			names = append(names, Name{bundle, role})
		}
		return names
	}
	for _, s := range []string{"", "a/a", "a/a a/b b/a", strings.Repeat("a", maxRune) + "/" + strings.Repeat("b", maxRole)} {
		if err := CheckClaims(names(s)); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	many := "a/a a/b a/c a/d a/e a/f a/g a/h a/i a/j a/k a/l a/m a/n a/o a/p"
	if err := CheckClaims(names(many)); err != nil {
		t.Error(err)
	}
	if claims, over := Claimable(names(many + " a/q a/r")); len(claims) != MaxClaims || len(over) != 2 || over[0] != (Name{"a", "q"}) {
		t.Errorf("of %d roles too many, %v are", MaxClaims+2, over)
	}
	if claims, over := Claimable(names("a/a")); len(claims) != 1 || len(over) > 0 {
		t.Errorf("of one role %v are too many", over)
	}
	long := strings.Repeat("r", maxRole-1)
	for _, s := range []string{many + " a/q", "a/b a/a", "a/a a/a", "a/A", "a/", strings.ReplaceAll("a/X1 a/X2 a/X3 a/X4 a/X5 a/X6 a/X7", "X", long)} {
		if err := CheckClaims(names(s)); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"compile/scheduler", "50%", "12", "memory >= 8G", "has gpu", "label a", "mac 52:54:00:12:34:56", "cpus >= 4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var n Name
		if n.UnmarshalText([]byte(s)) == nil && n.String() != s {
			t.Errorf("name %q came back as %q", s, n)
		}
		var c Count
		if c.UnmarshalText([]byte(s)) == nil {
			if again, err := ParseCount(c.String()); err != nil || again != c || c.of(10) < 1 || c.of(10) > 10 {
				t.Errorf("count %q came back as %q, %v", s, again, err)
			}
		}
		var need Need
		if need.UnmarshalText([]byte(s)) == nil {
			if again, err := ParseNeed(need.String()); err != nil || again != need {
				t.Errorf("need %q came back as %q, %v", s, again, err)
			}
		}
	})
}
