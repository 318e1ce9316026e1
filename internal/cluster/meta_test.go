package cluster

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"

	"viver.lan/internal/ether"
	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/manifest"
	"viver.lan/internal/sshkey"
)

var someMetas = []Meta{
	{},
	{Hostname: "node-7", MAC: ether.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x56}, SwarmPort: 6881, HTTPPort: 80, First: true, Infohash: manifest.Infohash{1, 2, 3},
		Budget: 1 << 40, HostKey: sshkey.Key{4, 5}, Network: "abc", Live: livelayer.Mark{1, 7: 8}},
	{Hostname: strings.Repeat("x", maxHostname), MAC: ether.MAC{255, 255, 255, 255, 255, 255}, Network: strings.Repeat("y", maxNetwork)},
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
		if len(b) > memberlist.MetaMaxSize {
			t.Errorf("%+v takes %d bytes", m, len(b))
		}
		if back, err := parseSigned(b); err != nil || !back.signedBy(id, at) || back.Meta != m || back.sequence != 7 || back.public != key.Public() {
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
		{Network: "a b"}, {Budget: -1},
	} {
		if err := m.check(); err == nil {
			t.Errorf("%+v is accepted", m)
		}
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
		if back, err := parseSigned(s.Meta.sign(key, at, s.sequence)); err != nil || back.Meta != s.Meta || back.sequence != s.sequence {
			t.Errorf("%+v came back as %+v, %v", s, back, err)
		}
	})
}
