package runner

import (
	"viver.lan/internal/control"
	"viver.lan/internal/livelayer"
)

// layerFor returns the live layer that a status wants in the place of the one that is in
// use, if it wants any. One that the machine booted with, from a disk or a boot host of
// another network, is none of this network's.
func (s Start) layerFor(status *control.Status, used livelayer.Digest) (d livelayer.Digest, known bool) {
	if l := status.Live; l != nil && l.Here {
		return l.Digest, true
	}
	return d, used == s.Layer && status.Network != "" && status.Network != s.LayerNetwork
}

// use makes another live layer the one in use, zero for none. One that cannot be read is
// tried again with the next status; what is in use stays.
func (r *runner) use(d livelayer.Digest) bool {
	var layer livelayer.Layer
	if d != (livelayer.Digest{}) {
		if r.config.Layer == nil {
			return false
		}
		var err error
		if layer, err = r.config.Layer(d); err != nil {
			r.log.Warn("the live layer is not used", "digest", d, "error", err)
			return false
		}
	}
	r.layer, r.added = d, layer
	r.log.Info("live layer", "digest", d, "off", layer.Off)
	return true
}
