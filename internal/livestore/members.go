package livestore

import (
	"context"
	"net/netip"

	"viver.lan/internal/cluster"
	"viver.lan/internal/livelayer"
)

// On is the membership as a store needs it.
func On(c *cluster.Cluster) Network { return members{c} }

type members struct{ *cluster.Cluster }

// Sources implements Network.
func (m members) Sources() (list []Source) {
	for _, p := range m.Peers() {
		if p.Meta.HTTPPort != 0 {
			list = append(list, Source{Addr: netip.AddrPortFrom(p.Addr.Addr(), p.Meta.HTTPPort), Has: p.Meta.Live})
		}
	}
	return list
}

// Announce implements Network.
func (m members) Announce(ctx context.Context, has livelayer.Mark) error {
	return m.UpdateMeta(ctx, func(meta *cluster.Meta) { meta.Live = has })
}

// Publications is the membership as a store of publications needs it: members say by the
// image that they keep, not by a mark, what they have, so all are asked. They may run
// another image than this node, which is what a publication is for.
func Publications(c *cluster.Cluster) Network { return publications{members{c}} }

type publications struct{ members }

// Sources implements Network.
func (p publications) Sources() (list []Source) {
	for _, m := range p.Members() {
		if m.State == cluster.Alive && !m.Self && m.Meta.HTTPPort != 0 {
			list = append(list, Source{Addr: netip.AddrPortFrom(m.Addr.Addr(), m.Meta.HTTPPort)})
		}
	}
	return list
}

// Announce implements Network.
func (publications) Announce(context.Context, livelayer.Mark) error { return nil }
