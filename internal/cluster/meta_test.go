package cluster

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"

	"viver.lan/internal/ether"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/manifest"
	"viver.lan/internal/sshkey"
)

var someMetas = []Meta{
	{},
	{Hostname: "node-7", MAC: ether.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x56}, SwarmPort: 6881, HTTPPort: 80, First: true, Infohash: manifest.Infohash{1, 2, 3},
		Budget: 1 << 40, HostKey: sshkey.Key{4, 5}, Network: "abc"},
	{Hostname: strings.Repeat("x", maxHostname), MAC: ether.MAC{255, 255, 255, 255, 255, 255}, Network: strings.Repeat("y", maxNetwork)},
}

func TestMeta(t *testing.T) {
	key, at := identitytest.Key(t, "a"), netip.MustParseAddrPort("10.0.0.7:7946")
	id := string(key.ID())
	for _, m := range someMetas {
		b := m.sign(key, at, 7)
		if len(b) > memberlist.MetaMaxSize {
			t.Errorf("%+v takes %d bytes", m, len(b))
		}
		if back, err := verify(id, at, b); err != nil || back.Meta != m || back.sequence != 7 || back.public != key.Public() {
			t.Errorf("%+v came back as %+v, %v", m, back, err)
		}
		for n := range b { // each bit is signed
			changed := bytes.Clone(b)
			changed[n] ^= 1
			if back, err := verify(id, at, changed); err == nil {
				t.Errorf("byte %d can be changed: %+v", n, back)
			}
			if _, err := verify(id, at, b[:n]); err == nil {
				t.Errorf("%d bytes of %+v are enough", n, m)
			}
		}
		for what, err := range map[string]error{
			"another name":    second(verify(string(identitytest.ID("b")), at, b)),
			"another port":    second(verify(id, netip.AddrPortFrom(at.Addr(), 1), b)),
			"another address": second(verify(id, netip.MustParseAddrPort("10.0.0.8:7946"), b)),
		} {
			if err == nil {
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

func second(_ signed, err error) error { return err }

func FuzzParseSigned(f *testing.F) {
	key, at := identitytest.Key(f, "a"), netip.MustParseAddrPort("10.0.0.7:7946")
	for _, m := range someMetas {
		f.Add(m.sign(key, at, 7))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSigned(b)
		if said, verr := verify(string(key.ID()), at, b); verr == nil && (err != nil || said != s) {
			t.Errorf("%+v is accepted and read as %+v, %v", said, s, err)
		}
		if err != nil {
			return
		}
		if _, err := verify(string(s.public.ID()), at, b); err != nil && !errors.Is(err, errSignature) {
			t.Errorf("%+v is read, and then not: %v", s, err)
		}
		if back, err := parseSigned(s.Meta.sign(key, at, s.sequence)); err != nil || back.Meta != s.Meta || back.sequence != s.sequence {
			t.Errorf("%+v came back as %+v, %v", s, back, err)
		}
	})
}
