package blockdaemon

import (
	"slices"

	"viver.lan/internal/control"
	"viver.lan/internal/copies"
)

// Status is what there is to say, nil where nothing was ever published. With details it
// says how the second image is.
func (s *Second) Status(details bool) *control.Published {
	state := s.store.State()
	if state.Version == 0 {
		return nil
	}
	s.mu.Lock()
	use, k, reason, offered := s.use, s.kept, s.reason, s.offered
	s.mu.Unlock()
	p := &control.Published{Version: state.Version, Digest: state.Pointer.Digest, Reason: state.Reason, Offered: offered}
	if use != nil {
		p.Here, p.Reason = use.pointer == state.Pointer, reason
		p.Image, p.Name, p.Former = use.image.Info.Infohash, use.image.Manifest.Name, use.former.Info.Infohash
	}
	if details && k != nil {
		p.Second = secondStatus(k)
	}
	return p
}

func secondStatus(k *kept) *control.Second {
	v := k.volume.Status()
	s := &control.Second{Image: k.image.Info.Infohash, Have: v.Have, Pieces: v.Pieces, Reused: k.reused, Budget: v.Budget, Used: v.Used,
		OutOfReach: v.OutOfReach, Independence: v.Independence}
	for _, p := range v.Peers {
		if addr := p.Addr.Addr(); p.Ours && !p.Origin && p.Proof != copies.Failed && p.Have == v.Pieces && !slices.Contains(s.Whole, addr) {
			s.Whole = append(s.Whole, addr)
		}
	}
	return s
}
