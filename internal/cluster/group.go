package cluster

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"viver.lan/internal/manifest"
)

// Group is what a beacon says of the machines on the link that run another image. It
// is a claim; nobody joins them, but people want to know, and so do boot hosts.
type Group struct {
	Infohash manifest.Infohash
	Machines int        // alive, as far as the sender knows
	Medium   netip.Addr // of the lowest address among those with the medium; not set for none
}

// Bounds on what is remembered of other groups.
const (
	maxGroups = 16
	// groupTime is how long a group is remembered: its machines together send a
	// beacon about once a second, and one alone every three.
	groupTime = 30 * time.Second
)

// groups are the others on the link, by image.
type groups map[manifest.Infohash]heardGroup

type heardGroup struct {
	Group
	heard time.Time
}

// add takes a beacon of another image, and reports whether it says something new.
func (g groups) add(b beacon, now time.Time) bool {
	for image, h := range g {
		if now.Sub(h.heard) > groupTime {
			delete(g, image)
		}
	}
	old, known := g[b.infohash]
	if !known && len(g) >= maxGroups {
		return false
	}
	group := Group{b.infohash, int(b.machines), b.medium}
	g[b.infohash] = heardGroup{group, now}
	return old.Group != group
}

// Groups returns what was heard lately of machines on the link that run another
// image, ordered by infohash.
func (c *Cluster) Groups() []Group {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Group
	for _, h := range c.groups {
		if time.Since(h.heard) <= groupTime {
			list = append(list, h.Group)
		}
	}
	slices.SortFunc(list, func(a, b Group) int { return cmp.Compare(a.Infohash.String(), b.Infohash.String()) })
	return list
}

// group returns our own. It runs with c.mu held.
func (c *Cluster) group() Group {
	g := Group{Infohash: c.meta.Infohash, Machines: 1}
	take := func(addr netip.Addr) {
		if !g.Medium.IsValid() || addr.Less(g.Medium) {
			g.Medium = addr
		}
	}
	if c.meta.bootsMachines() {
		take(c.addr.Addr())
	}
	for _, m := range c.members {
		if m.Self || m.State != Alive || m.otherImage {
			continue
		}
		g.Machines++
		if m.Meta.bootsMachines() {
			take(m.Addr.Addr())
		}
	}
	return g
}
