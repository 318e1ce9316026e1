package control

import (
	"net/netip"
	"strings"

	"viver.lan/internal/event"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/manifest"
)

// Published is what the owner published for the network (package publication).
type Published struct {
	Version uint64           `json:"version"` // of two the greater is newer
	Digest  livelayer.Digest `json:"digest"`
	Here    bool             `json:"here"`             // this node has the publication
	Reason  string           `json:"reason,omitempty"` // why it is not, for people
	// Image is the published one, and Former the one before it; both are zero while the
	// publication is not here.
	Image  manifest.Infohash `json:"image"`
	Name   string            `json:"name"` // of Image
	Former manifest.Infohash `json:"former"`
	// Offered is the image that machines boot which this node boots.
	Offered manifest.Infohash `json:"offered"`
	// Second is nil while this node keeps one image only.
	Second *Second `json:"second,omitempty"`
}

// Second is the image that a node keeps beside the one that it runs.
type Second struct {
	Image        manifest.Infohash  `json:"image"`
	Have         int                `json:"have"` // pieces
	Pieces       int                `json:"pieces"`
	Reused       int                `json:"reused"` // of Have: copied from the node's own image
	Budget       int64              `json:"budget"` // bytes that its pieces may take,
	Used         int64              `json:"used"`   // and do
	OutOfReach   int                `json:"out_of_reach"`
	Independence event.Independence `json:"independence"`
	// Whole are the nodes in reach that hold all of it, without this one.
	Whole []netip.Addr `json:"whole,omitempty"`
}

// Runs reports whether machines of this network run an image.
func (s *Status) Runs(image manifest.Infohash) bool {
	return image == s.Infohash || s.Published != nil && s.Published.Here && (image == s.Published.Image || image == s.Published.Former)
}

// Offered is the image that machines boot which this node boots.
func (s *Status) Offered() manifest.Infohash {
	if s.Published != nil && s.Published.Here {
		return s.Published.Offered
	}
	return s.Infohash
}

// PeerFor returns where a member exchanges pieces of an image.
func (m Member) PeerFor(image manifest.Infohash) (port uint16, ok bool) {
	switch {
	case m.Image == image:
		return m.SwarmPort, true
	case m.Keeps != "" && strings.HasPrefix(image.String(), m.Keeps):
		return SecondSwarmPort, true
	}
	return 0, false
}
