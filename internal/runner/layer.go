package runner

import "viver.lan/internal/livelayer"

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
