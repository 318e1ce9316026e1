package netconf

import (
	"strings"
	"testing"

	"viver.lan/internal/ether"
)

func TestParseBootIF(t *testing.T) {
	want := ether.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x56}
	for _, s := range []string{
		"01-52-54-00-12-34-56", "52:54:00:12:34:56", "01:52:54:00:12:34:56",
		"52-54-00-12-34-56", "525400123456", " 01-52-54-00-12-34-56\n", "01-52-54-00-12-34-56",
	} {
		got, err := ParseBootIF(s)
		if err != nil || got != want {
			t.Errorf("ParseBootIF(%q) = %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{
		"", "eth0", "20-52-54-00-12-34-56", "52:54:00:12:34",
		"01-52-54-00-12-34-56-78", "zz:54:00:12:34:56",
	} {
		if got, err := ParseBootIF(s); err == nil {
			t.Errorf("ParseBootIF(%q) = %v, want an error", s, got)
		}
	}
}

func FuzzParseBootIF(f *testing.F) {
	f.Add("01-52-54-00-12-34-56")
	f.Add("52:54:00:12:34:56")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseBootIF(s)
		if err != nil {
			return
		}
		if back, err := ParseBootIF("01-" + strings.ReplaceAll(m.String(), ":", "-")); err != nil || back != m {
			t.Errorf("%q gives %v, which gives %v, %v", s, m, back, err)
		}
	})
}
