package blockdaemon

import (
	"viver.lan/internal/control"
	"viver.lan/internal/livestore"
)

// savedLayers is the directory of the saved-data disk for live layers, beside
// overridesFile.
const savedLayers = "live"

// liveStatus is what the store says, nil if no live layer was ever wanted.
func liveStatus(s livestore.State) *control.Live {
	if s.Version == 0 {
		return nil
	}
	return &control.Live{Version: s.Version, Digest: s.Pointer.Digest, Here: s.Here, Reason: s.Reason}
}
