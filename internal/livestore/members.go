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
