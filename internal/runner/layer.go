package runner

import (
	"bytes"
	"maps"
	"slices"

	"viver.lan/internal/livelayer"
	"viver.lan/internal/runes"
)

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

// overlaid returns the bundles and the settings with what a live layer has. All that can
// be of its bundles is laid now, because the machine has not booted with them.
func overlaid(all []runes.Bundle, settings map[string]map[string]string, layer livelayer.Layer) ([]runes.Bundle, map[string]map[string]string, []error) {
	var added []runes.Bundle
	var errs []error
	if len(layer.Runes) > 0 {
		added, errs = runes.ReadTar(bytes.NewReader(layer.Runes))
	}
	for i, b := range added {
		added[i] = b.AllLive()
	}
	all = slices.DeleteFunc(runes.Merge(all, added), func(b runes.Bundle) bool { return slices.Contains(layer.Off, b.Name) })
	merged := make(map[string]map[string]string)
	for _, set := range []map[string]map[string]string{settings, layer.Settings} {
		for name, values := range set {
			if merged[name] == nil {
				merged[name] = make(map[string]string)
			}
			maps.Copy(merged[name], values)
		}
	}
	return all, merged, errs
}
