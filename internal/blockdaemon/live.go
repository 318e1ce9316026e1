package blockdaemon

import (
	"errors"
	"io/fs"
	"os"

	"viver.lan/internal/control"
	"viver.lan/internal/durable"
	"viver.lan/internal/livestore"
)

// liveChanged tells the followers of the status, and has @vrune started when a live layer
// is here that it is to use.
func (n *node) liveChanged() {
	n.changes.Notify()
	if state := n.live.State(); state.Version == 0 || !state.Here {
		return
	}
	if _, err := os.Stat(control.RunnerWantedFile); !errors.Is(err, fs.ErrNotExist) {
		return // it is wanted already
	}
	if err := durable.WriteFile(control.RunnerWantedFile, nil, 0o644); err != nil {
		n.log.Warn("the live layer is not used", "error", err)
	}
}

// liveStatus is what the store says, nil if no live layer was ever wanted.
func liveStatus(s livestore.State) *control.Live {
	if s.Version == 0 {
		return nil
	}
	return &control.Live{Version: s.Version, Digest: s.Pointer.Digest, Here: s.Here, Reason: s.Reason}
}
