package blockdaemon

import (
	"net/netip"
	"path/filepath"
	"strings"

	"viver.lan/internal/control"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/piecestore"
	"viver.lan/internal/publication"
	"viver.lan/internal/sign"
	"viver.lan/internal/vfield"
)

// openSecond readies what a node needs for another image than its own. Without an owner
// whose signature there is on it there is none.
func (n *node) openSecond() {
	owner, err := sign.ReadPublicKey("/" + manifest.OwnerKey)
	if err != nil {
		return // verifyOverrides has said so
	}
	address := n.network.Lease.Address
	n.second = NewSecond(SecondConfig{
		Owner: owner, Runs: n.image, Pieces: n.store, Cluster: n.cluster, Key: n.key,
		Dir: control.PublicationDir, Saved: savedPublications(), Describe: control.SecondDir,
		Listen: netip.AddrPortFrom(address.Addr(), control.SecondSwarmPort), Network: address.Masked(),
		Room:    func(info *metainfo.Info) (piecestore.Config, error) { return secondRoom(control.SecondPieceDir, info) },
		Busy:    func() bool { return n.startup.isUp() == "" || n.volume.Waits() },
		Changed: n.changes.Notify, Log: n.log,
	})
}

// published is what there is to say of a published image.
func (n *node) published(details bool) *control.Published {
	if n.second == nil {
		return nil
	}
	return n.second.Status(details)
}

// imageOf returns the volume that has the file which control.Daemon.Open names, its
// manifest, and the file's name in it; nil for an image that is not here.
func (n *node) imageOf(name string) (*vfield.Volume, *manifest.Manifest, string) {
	first, rest, _ := strings.Cut(name, "/")
	hash, err := manifest.ParseInfohash(first)
	switch {
	case err != nil:
		return n.volume, n.manifest, name
	case hash == n.info.Infohash:
		return n.volume, n.manifest, rest
	case n.second == nil:
		return nil, nil, rest
	}
	volume, image := n.second.Volume(hash)
	return volume, image, rest
}

// AddPublication implements control.Publications.
func (n *node) AddPublication(data []byte) error {
	if n.second == nil {
		return errNoOwner
	}
	return n.second.Store().Add(data)
}

// Publication implements control.Publications.
func (n *node) Publication() ([]byte, error) {
	if n.second == nil {
		return publication.Publication{Image: n.image.Files, Former: n.image.Files}.Encode()
	}
	return n.second.Publication()
}

// savedPublications is the directory of a saved-data disk for publications.
func savedPublications() string { return filepath.Join(savedDataDir(1), "publications") }
