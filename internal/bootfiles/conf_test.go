package bootfiles

import (
	"bytes"
	"maps"
	"slices"
	"testing"
	"testing/fstest"

	"viver.lan/internal/newc"
)

// What the Linux says of its modules is in the initramfs; of two files with one name that in
// /etc is.
func TestConfOfModulesComesAlong(t *testing.T) {
	linux := fstest.MapFS{
		"etc/modprobe.d/a.conf":           {Data: []byte("blacklist a\n")},
		"etc/modprobe.d/README":           {Data: []byte("not this\n")},
		"lib/modprobe.d/a.conf":           {Data: []byte("blacklist hidden\n")},
		"usr/lib/modprobe.d/aliases.conf": {Data: []byte("alias b a\n")},
	}
	var packed bytes.Buffer
	c := newArchive(&packed)
	if err := (&Modules{linux: linux}).writeConf(c); err != nil {
		t.Fatal(err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for r := newc.NewReader(&packed); ; {
		m, err := r.Next()
		if err != nil {
			break
		}
		var text bytes.Buffer
		if _, err := m.WriteTo(&text); err != nil {
			t.Fatal(err)
		}
		if text.Len() > 0 {
			got[m.Name] = text.String()
		}
	}
	want := map[string]string{"etc/modprobe.d/a.conf": "blacklist a\n", "etc/modprobe.d/aliases.conf": "alias b a\n"}
	if !maps.Equal(got, want) {
		t.Errorf("the initramfs has %q, want %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}
