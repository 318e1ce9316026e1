package bootorder

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/ether"
	"viver.lan/internal/manifest"
)

// The images of these tests.
var red, blue = manifest.Infohash{0xed}, manifest.Infohash{0xb1}

func color(i manifest.Infohash) string {
	return map[manifest.Infohash]string{red: "red", blue: "blue"}[i]
}

func TestMediaOfOtherGroups(t *testing.T) {
	ours := control.Member{MAC: ether.MAC{5: 5}, Hostname: "node-05", Address: netip.MustParseAddr("10.77.0.5"), HTTPPort: control.HTTPPort, First: true, Image: red, State: control.Alive}
	for _, c := range []struct {
		name  string
		group control.Group
		order string
	}{
		{"a larger room", control.Group{Image: blue, Machines: 2, Medium: netip.MustParseAddr("10.77.0.9")}, "blue red"},
		{"as large, lower", control.Group{Image: blue, Machines: 1, Medium: netip.MustParseAddr("10.77.0.4")}, "blue red"},
		{"as large, higher", control.Group{Image: blue, Machines: 1, Medium: netip.MustParseAddr("10.77.0.10")}, "red blue"},
		{"without a medium", control.Group{Image: blue, Machines: 9, Medium: netip.Addr{}}, "red"},
		{"ours, by another name", control.Group{Image: red, Machines: 9, Medium: netip.MustParseAddr("10.77.0.4")}, "red"},
	} {
		s := &control.Status{Members: []control.Member{ours}, Groups: []control.Group{c.group}}
		var order []string
		for _, m := range MembersWithMedium(s) {
			order = append(order, color(m.Image))
		}
		if got := strings.Join(order, " "); got != c.order {
			t.Errorf("%s: %s, want %s", c.name, got, c.order)
		}
		if note := Note(s); (note != "") != strings.Contains(c.order, "blue") {
			t.Errorf("%s: note %q", c.name, note)
		}
	}
}

func TestMediaServeInOneOrder(t *testing.T) {
	member := func(n string, first bool, image manifest.Infohash) control.Member {
		return control.Member{MAC: ether.MAC{5: n[1]}, Hostname: n, Address: netip.MustParseAddr("10.77.0." + n[1:]), HTTPPort: control.HTTPPort, First: first, Image: image, State: control.Alive}
	}
	dead := member("00", true, red)
	dead.State = control.Dead
	volume := member("00", true, red)
	volume.HTTPPort = 0
	for _, c := range []struct {
		name    string
		members []control.Member
		order   string
		note    string // what it has to say, besides the order
	}{
		{"nobody", nil, "", ""},
		{"one, and one that is dead", []control.Member{dead, member("05", true, red), member("01", false, red)}, "05", ""},
		{"one, and a volume on any machine", []control.Member{volume, member("05", true, red)}, "05", ""},
		{"two of one image", []control.Member{member("05", true, red), member("02", true, red), member("01", false, red)}, "02 05", "2 machines have a medium"},
		{"two images, alone", []control.Member{member("05", true, red), member("02", true, blue)}, "02 05", "images differ"},
		{"an image that a room runs, and a new medium", []control.Member{member("05", true, red), member("06", false, red), member("02", true, blue)}, "05 02", "images differ"},
		{"two of each", []control.Member{member("05", true, red), member("03", true, blue), member("02", true, red), member("04", true, blue)}, "02 05 03 04", "4 machines"},
		{"a room whose first node is gone, and a new medium", []control.Member{member("05", false, red), member("06", false, red), member("02", true, blue)}, "02", ""},
		{"many", []control.Member{member("01", true, red), member("02", true, red), member("03", true, red), member("04", true, red), member("05", true, red), member("06", true, red)},
			"01 02 03 04 05 06", "2 more"},
	} {
		for range 2 { // each member lists them as it met them
			s := &control.Status{Members: c.members}
			var order []string
			for _, m := range MembersWithMedium(s) {
				order = append(order, m.Hostname)
			}
			if got := strings.Join(order, " "); got != c.order {
				t.Errorf("%s: order %q, want %q", c.name, got, c.order)
			}
			if note := Note(s); (note == "") != (c.note == "") || !strings.Contains(note, c.note) {
				t.Errorf("%s: note %q, want %q", c.name, note, c.note)
			}
			slices.Reverse(c.members)
		}
	}
}
