package cluster

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"

	"viver.lan/internal/ether"
	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/manifest"
	"viver.lan/internal/roles"
	"viver.lan/internal/sshkey"
)

var someMetas = []Meta{
	{},
	{Hostname: "node-7", MAC: ether.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x56}, SwarmPort: 6881, HTTPPort: 80, First: true, Infohash: manifest.Infohash{1, 2, 3},
		Budget: 1 << 40, HostKey: sshkey.Key{4, 5}, Network: "abc", Live: livelayer.Mark{1, 7: 8}},
	{Hostname: strings.Repeat("x", maxHostname), MAC: ether.MAC{255, 255, 255, 255, 255, 255}, Network: strings.Repeat("y", maxNetwork)},
	{announced: true, Keeps: ImageMark{1, 7: 8}},
	{Memory: 8 << 30, CPUs: 4, Features: []string{roles.SavedData, roles.KVM}, TakesRoles: true},
	{TakesRoles: true, Claims: []roles.Name{{Rune: "compile", Role: "scheduler"}, {Rune: "nfs", Role: "server"}}},
	{Hostname: strings.Repeat("x", maxHostname), Network: strings.Repeat("y", maxNetwork), Memory: maxMemory &^ (memoryUnit - 1), CPUs: maxCPUs,
		Features: roles.Features(), TakesRoles: true, Claims: mostClaims()},
}

// laterFacts are bytes that all facts leave for fields to come.
const laterFacts = 16

// mostClaims are as many claims as fit.
func mostClaims() (claims []roles.Name) {
	for i := byte(0); ; i++ {
		more := append(claims, roles.Name{Rune: "a", Role: string('a'+i) + strings.Repeat("r", 8)})
		if roles.CheckClaims(more) != nil {
			return claims
		}
		claims = more
	}
}

func TestMeta(t *testing.T) {
	key, at := identitytest.Key(t, "a"), netip.MustParseAddrPort("10.0.0.7:7946")
	id := key.ID()
	accepted := func(id identity.ID, at netip.AddrPort, b []byte) bool {
		s, err := parseSigned(b)
		return err == nil && s.signedBy(id, at)
	}
	for _, m := range someMetas {
		b := m.sign(key, at, 7)
		if len(b) > memberlist.MetaMaxSize-laterFacts {
			t.Errorf("%+v takes %d bytes, with %d left for later fields", m, len(b), memberlist.MetaMaxSize-len(b))
		}
		if back, err := parseSigned(b); err != nil || !back.signedBy(id, at) || !reflect.DeepEqual(back.Meta, m) || back.sequence != 7 || back.public != key.Public() {
			t.Errorf("%+v came back as %+v, %v", m, back, err)
		}
		for n := range b { // each bit is signed
			changed := bytes.Clone(b)
			changed[n] ^= 1
			if accepted(id, at, changed) {
				t.Errorf("byte %d of %+v can be changed", n, m)
			}
			if accepted(id, at, b[:n]) {
				t.Errorf("%d bytes of %+v are enough", n, m)
			}
		}
		for what, ok := range map[string]bool{
			"another name":    accepted(identitytest.ID("b"), at, b),
			"another port":    accepted(id, netip.AddrPortFrom(at.Addr(), 1), b),
			"another address": accepted(id, netip.MustParseAddrPort("10.0.0.8:7946"), b),
		} {
			if ok {
				t.Errorf("%s: accepted", what)
			}
		}
	}
	for _, m := range []Meta{
		{Hostname: strings.Repeat("x", maxHostname+1)}, {Hostname: "a b"}, {Hostname: "a\x1b[2J"}, {Network: strings.Repeat("x", maxNetwork+1)},
		{Network: "a b"}, {Budget: -1}, {CPUs: -1}, {CPUs: maxCPUs + 1}, {Memory: maxMemory + 1}, {Features: []string{"wings"}},
		{Claims: []roles.Name{{Rune: "a", Role: "b"}}},
		{TakesRoles: true, Claims: []roles.Name{{Rune: "a", Role: "b"}, {Rune: "a", Role: "b"}}},
		{TakesRoles: true, Claims: []roles.Name{{Rune: "a", Role: "\x1b[2J"}}},
		{TakesRoles: true, Claims: append(mostClaims(), roles.Name{Rune: "z", Role: "another"})},
	} {
		if err := m.check(); err == nil {
			t.Errorf("%+v is accepted", m)
		}
	}
}

// TestMetaOfOtherVersions: earlier ones say nothing of abilities, or of the image that is
// kept, a later one more.
func TestMetaOfOtherVersions(t *testing.T) {
	m := Meta{Hostname: "a", Network: "n", CPUs: 4, TakesRoles: true, Claims: []roles.Name{{Rune: "a", Role: "b"}}}
	facts := m.append(nil)
	facts = facts[:len(facts)-len(m.Keeps)]
	before, err := parseMeta(facts)
	if err != nil || !reflect.DeepEqual(before, m) {
		t.Errorf("the facts of a version that keeps one image are %+v, %v", before, err)
	}
	m.Keeps = ImageMark{1, 7: 2}
	whole := m.append(nil)
	ability := len(m.appendAbility(nil))
	earlier, err := parseMeta(facts[:len(facts)-ability])
	if want := (Meta{Hostname: "a", Network: "n", TakesRoles: true}); err != nil || !reflect.DeepEqual(earlier, want) {
		t.Errorf("an earlier version's facts are %+v, %v", earlier, err)
	}
	if later, err := parseMeta(append(bytes.Clone(whole), "more"...)); err != nil || !reflect.DeepEqual(later, m) {
		t.Errorf("a later version's facts are %+v, %v", later, err)
	}
	for n := 1; n < ability+len(m.Keeps); n++ {
		if cut, err := parseMeta(whole[:len(whole)-n]); err == nil && n != len(m.Keeps) {
			t.Errorf("%d bytes less are read as %+v", n, cut)
		}
	}
	for what, b := range map[string][]byte{
		"more claims than there are": append(bytes.Clone(facts[:len(facts)-5]), 2, 3, 'a', '/', 'b'),
		"a claim twice":              append(bytes.Clone(facts[:len(facts)-5]), 2, 3, 'a', '/', 'b', 3, 'a', '/', 'b'),
		"a claim out of order":       append(bytes.Clone(facts[:len(facts)-5]), 2, 3, 'a', '/', 'b', 3, 'a', '/', 'a'),
		"a claim with a bad name":    append(bytes.Clone(facts[:len(facts)-5]), 1, 3, 'a', '/', '\n'),
		"an empty claim":             append(bytes.Clone(facts[:len(facts)-5]), 1, 0),
		"255 claims":                 append(bytes.Clone(facts[:len(facts)-5]), 255),
	} {
		if m, err := parseMeta(b); err == nil {
			t.Errorf("%s: read as %+v", what, m)
		}
	}
	unknown := bytes.Clone(whole)
	unknown[len(facts)-ability+6] = 0x80 // a feature of a later version
	if m, err := parseMeta(unknown); err != nil || len(m.Features) != 0 {
		t.Errorf("with an unknown feature: %+v, %v", m, err)
	}
}

func FuzzParseSigned(f *testing.F) {
	key, at := identitytest.Key(f, "a"), netip.MustParseAddrPort("10.0.0.7:7946")
	for _, m := range someMetas {
		f.Add(m.sign(key, at, 7))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSigned(b)
		if err != nil {
			return
		}
		s.signedBy(s.public.ID(), at)
		if back, err := parseSigned(s.Meta.sign(key, at, s.sequence)); err != nil || !reflect.DeepEqual(back.Meta, s.Meta) || back.sequence != s.sequence {
			t.Errorf("%+v came back as %+v, %v", s, back, err)
		}
	})
}
