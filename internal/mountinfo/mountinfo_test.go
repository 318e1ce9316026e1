package mountinfo

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	got, err := parse(strings.NewReader(`29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
30 29 0:42 /@home /home\040of\040all rw - btrfs /dev/sdb rw
not a line
`))
	want := []Mount{{"8:1", "/", "/", "ext4", "/dev/sda1", []string{"rw", "errors=remount-ro"}}, {"0:42", "/@home", "/home of all", "btrfs", "/dev/sdb", []string{"rw"}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if list, err := List(); err != nil || !slices.ContainsFunc(list, func(m Mount) bool { return m.Point == "/proc" }) {
		t.Errorf("of this process: %v, %v", list, err)
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`/a\040b`: "/a b", `/a\134b`: `/a\b`, `/a\04`: `/a\04`, `\`: `\`, "/x": "/x"} {
		if got := Unescape(in); got != want {
			t.Errorf("Unescape(%q) = %q", in, got)
		}
	}
}
