// Package bootorder says which machine boots the others where several have a medium.
//
// It decides no rank, which is for package agent. The invariant: whoever knows the same
// members works out the same order.
package bootorder

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"viver.lan/internal/control"
	"viver.lan/internal/manifest"
)

// MembersWithMedium returns the live boot hosts that have a medium, in the order in which they
// answer machines that boot; of other images one each. All work it out alike: first
// the image that most machines run, so that a medium that is plugged in changes
// nothing in a running room; where as many run each, the one whose machine has the
// lowest address. Those of one image answer by their MAC addresses.
func MembersWithMedium(s *control.Status) []control.Member {
	type rank struct {
		machines int
		medium   netip.Addr // the lowest
	}
	ranks := map[manifest.Infohash]rank{}
	var media []control.Member
	take := func(r *rank, m control.Member) {
		media = append(media, m)
		if !r.medium.IsValid() || m.Address.Less(r.medium) {
			r.medium = m.Address
		}
	}
	for _, m := range s.Members {
		if m.State != control.Alive {
			continue
		}
		m.Image = home(s, m.Image)
		r := ranks[m.Image]
		r.machines++
		if m.First && m.HTTPPort != 0 {
			take(&r, m)
		}
		ranks[m.Image] = r
	}
	for _, g := range s.Groups {
		g.Image = home(s, g.Image)
		if _, known := ranks[g.Image]; known || !g.Medium.IsValid() {
			continue
		}
		r := rank{machines: g.Machines}
		take(&r, control.Member{Hostname: "another", Address: g.Medium, Image: g.Image, First: true, State: control.Alive})
		ranks[g.Image] = r
	}
	slices.SortFunc(media, func(a, b control.Member) int {
		x, y := ranks[a.Image], ranks[b.Image]
		return cmp.Or(cmp.Compare(y.machines, x.machines), x.medium.Compare(y.medium), a.MAC.Compare(b.MAC))
	})
	return media
}

// home is the image that stands for a network of which machines run two.
func home(s *control.Status, image manifest.Infohash) manifest.Infohash {
	if s.Runs(image) {
		return s.Infohash
	}
	return image
}

// maxNamed is how many machines with a medium Note names.
const maxNamed = 4

// Note says which machine boots the others where several have a medium; ""
// where at most one has.
func Note(s *control.Status) string {
	media := MembersWithMedium(s)
	if len(media) < 2 {
		return ""
	}
	var names []string
	images := map[manifest.Infohash]bool{}
	for i, m := range media {
		images[m.Image] = true
		if i < maxNamed {
			names = append(names, fmt.Sprintf("%s (%s, image %.8s)", cmp.Or(m.Name, m.Hostname), m.Address, m.Image.String()))
		}
	}
	if more := len(media) - maxNamed; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	note := fmt.Sprintf("%d machines have a medium and answer machines that boot in this order: %s", len(media), strings.Join(names, ", "))
	if len(images) > 1 {
		note += "; their images differ: switch off the one whose image nobody shall get"
	}
	return note
}
