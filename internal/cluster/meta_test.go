package cluster

import (
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"

	"viver.lan/internal/manifest"
	"viver.lan/internal/sshkey"
)

func TestMeta(t *testing.T) {
	for _, m := range []Meta{
		{},
		{Hostname: "node-7", SwarmPort: 6881, HTTPPort: 80, First: true, Infohash: manifest.Infohash{1, 2, 3}, Budget: 1 << 40, HostKey: sshkey.Key{4, 5}},
		{Hostname: strings.Repeat("x", maxHostname)},
	} {
		b := m.marshal()
		if len(b) > memberlist.MetaMaxSize {
			t.Errorf("%+v takes %d bytes", m, len(b))
		}
		if back, err := parseMeta(b); err != nil || back != m {
			t.Errorf("%+v came back as %+v, %v", m, back, err)
		}
		if back, err := parseMeta(append(b, 1, 2, 3)); err != nil || back != m {
			t.Errorf("with bytes of a later version %+v came back as %+v, %v", m, back, err)
		}
		earlier := m
		earlier.HostKey = sshkey.Key{}
		if back, err := parseMeta(b[:len(b)-metaKey]); err != nil || back != earlier {
			t.Errorf("of an earlier version %+v came back as %+v, %v", m, back, err)
		}
		if _, err := parseMeta(b[:len(b)-1]); err == nil {
			t.Errorf("a truncated %+v is accepted", m)
		}
	}
	for _, name := range []string{strings.Repeat("x", maxHostname+1), "a b", "a\x1b[2J"} {
		if err := (Meta{Hostname: name}).check(); err == nil {
			t.Errorf("host name %q is accepted", name)
		}
	}
}

func FuzzParseMeta(f *testing.F) {
	f.Add(Meta{Hostname: "node-7", SwarmPort: 6881, First: true, Budget: 1 << 30}.marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseMeta(b)
		if err != nil {
			return
		}
		if back, err := parseMeta(m.marshal()); err != nil || back != m {
			t.Errorf("%+v came back as %+v, %v", m, back, err)
		}
	})
}
