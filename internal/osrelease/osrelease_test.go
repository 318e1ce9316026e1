package osrelease

import (
	"testing"
	"testing/fstest"
)

func TestPrettyName(t *testing.T) {
	for want, linux := range map[string]fstest.MapFS{
		"":                    {},
		"Debian GNU/Linux 13": {"etc/os-release": {Data: []byte("ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 13\"\n")}},
		"Arch":                {"etc/os-release": {Data: []byte("PRETTY_NAME=\"\"\n")}, "usr/lib/os-release": {Data: []byte(" PRETTY_NAME='Arch'")}},
	} {
		if got := PrettyName(linux); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
