package control

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"viver.lan/internal/manifest"
)

// Media returns the live boot hosts that have a medium, in the order in which they
// answer machines that boot; of other images one each. All work it out alike: first
// the image that most machines run, so that a medium that is plugged in changes
// nothing in a running room; where as many run each, the one whose machine has the
// lowest address. Those of one image answer by their MAC addresses.
func (s *Status) Media() []Member {
	type rank struct {
		machines int
		medium   netip.Addr // the lowest
	}
	ranks := map[manifest.Infohash]rank{}
	var media []Member
	take := func(r *rank, m Member) {
		media = append(media, m)
		if !r.medium.IsValid() || m.Address.Less(r.medium) {
			r.medium = m.Address
		}
	}
	for _, m := range s.Members {
		if m.State != Alive {
			continue
		}
		r := ranks[m.Image]
		r.machines++
		if m.First && m.HTTPPort != 0 {
			take(&r, m)
		}
		ranks[m.Image] = r
	}
	for _, g := range s.Groups {
		if _, known := ranks[g.Image]; known || !g.Medium.IsValid() {
			continue
		}
		r := rank{machines: g.Machines}
		take(&r, Member{Hostname: "another", Address: g.Medium, Image: g.Image, First: true, State: Alive})
		ranks[g.Image] = r
	}
	slices.SortFunc(media, func(a, b Member) int {
		x, y := ranks[a.Image], ranks[b.Image]
		return cmp.Or(cmp.Compare(y.machines, x.machines), x.medium.Compare(y.medium), bytes.Compare(a.MAC[:], b.MAC[:]))
	})
	return media
}

// maxNamed is how many machines with a medium MediaNote names.
const maxNamed = 4

// MediaNote says which machine boots the others where several have a medium; ""
// where at most one has.
func (s *Status) MediaNote() string {
	media := s.Media()
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
