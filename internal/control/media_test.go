package control

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/ether"
	"viver.lan/internal/manifest"
)

// The images of these tests.
var red, blue = manifest.Infohash{0xed}, manifest.Infohash{0xb1}

func color(i manifest.Infohash) string {
	return map[manifest.Infohash]string{red: "red", blue: "blue"}[i]
}

func TestMediaOfOtherGroups(t *testing.T) {
	ours := Member{MAC: ether.MAC{5: 5}, Hostname: "node-05", Address: netip.MustParseAddr("10.77.0.5"), HTTPPort: HTTPPort, First: true, Image: red, State: Alive}
	for _, c := range []struct {
		name  string
		group Group
		order string
	}{
		{"a larger room", Group{blue, 2, netip.MustParseAddr("10.77.0.9")}, "blue red"},
		{"as large, lower", Group{blue, 1, netip.MustParseAddr("10.77.0.4")}, "blue red"},
		{"as large, higher", Group{blue, 1, netip.MustParseAddr("10.77.0.10")}, "red blue"},
		{"without a medium", Group{blue, 9, netip.Addr{}}, "red"},
		{"ours, by another name", Group{red, 9, netip.MustParseAddr("10.77.0.4")}, "red"},
	} {
		s := &Status{Members: []Member{ours}, Groups: []Group{c.group}}
		var order []string
		for _, m := range s.Media() {
			order = append(order, color(m.Image))
		}
		if got := strings.Join(order, " "); got != c.order {
			t.Errorf("%s: %s, want %s", c.name, got, c.order)
		}
		if note := s.MediaNote(); (note != "") != strings.Contains(c.order, "blue") {
			t.Errorf("%s: note %q", c.name, note)
		}
	}
}

func TestMediaServeInOneOrder(t *testing.T) {
	member := func(n string, first bool, image manifest.Infohash) Member {
		return Member{MAC: ether.MAC{5: n[1]}, Hostname: n, Address: netip.MustParseAddr("10.77.0." + n[1:]), HTTPPort: HTTPPort, First: first, Image: image, State: Alive}
	}
	dead := member("00", true, red)
	dead.State = Dead
	volume := member("00", true, red)
	volume.HTTPPort = 0
	for _, c := range []struct {
		name    string
		members []Member
		order   string
		note    string // what it has to say, besides the order
	}{
		{"nobody", nil, "", ""},
		{"one, and one that is dead", []Member{dead, member("05", true, red), member("01", false, red)}, "05", ""},
		{"one, and a volume on any machine", []Member{volume, member("05", true, red)}, "05", ""},
		{"two of one image", []Member{member("05", true, red), member("02", true, red), member("01", false, red)}, "02 05", "2 machines have a medium"},
		{"two images, alone", []Member{member("05", true, red), member("02", true, blue)}, "02 05", "images differ"},
		{"an image that a room runs, and a new medium", []Member{member("05", true, red), member("06", false, red), member("02", true, blue)}, "05 02", "images differ"},
		{"two of each", []Member{member("05", true, red), member("03", true, blue), member("02", true, red), member("04", true, blue)}, "02 05 03 04", "4 machines"},
		{"a room whose first node is gone, and a new medium", []Member{member("05", false, red), member("06", false, red), member("02", true, blue)}, "02", ""},
		{"many", []Member{member("01", true, red), member("02", true, red), member("03", true, red), member("04", true, red), member("05", true, red), member("06", true, red)},
			"01 02 03 04 05 06", "2 more"},
	} {
		for range 2 { // each member lists them as it met them
			s := &Status{Members: c.members}
			var order []string
			for _, m := range s.Media() {
				order = append(order, m.Hostname)
			}
			if got := strings.Join(order, " "); got != c.order {
				t.Errorf("%s: order %q, want %q", c.name, got, c.order)
			}
			if note := s.MediaNote(); (note == "") != (c.note == "") || !strings.Contains(note, c.note) {
				t.Errorf("%s: note %q, want %q", c.name, note, c.note)
			}
			slices.Reverse(c.members)
		}
	}
}
