package blockdaemon

import (
	"context"
	"net/netip"

	"viver.lan/internal/cluster"
	"viver.lan/internal/control"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/livestore"
)

// savedLayers is the directory of the saved-data disk for live layers, beside
// overridesFile.
const savedLayers = "live"

// liveNetwork is the membership as the store of live layers needs it.
type liveNetwork struct{ *cluster.Cluster }

// Sources implements livestore.Network.
func (n liveNetwork) Sources() (list []livestore.Source) {
	for _, m := range n.Peers() {
		if m.Meta.HTTPPort != 0 {
			list = append(list, livestore.Source{Addr: netip.AddrPortFrom(m.Addr.Addr(), m.Meta.HTTPPort), Has: m.Meta.Live})
		}
	}
	return list
}

// Announce implements livestore.Network.
func (n liveNetwork) Announce(ctx context.Context, has livelayer.Mark) error {
	return n.UpdateMeta(ctx, func(m *cluster.Meta) { m.Live = has })
}

// liveStatus is what the store says, nil if no live layer was ever wanted.
func liveStatus(s livestore.State) *control.Live {
	if s.Version == 0 {
		return nil
	}
	return &control.Live{Version: s.Version, Digest: s.Pointer.Digest, Here: s.Here, Reason: s.Reason}
}
