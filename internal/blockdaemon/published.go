package blockdaemon

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
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

// openFile opens the file which control.Daemon.Open names, of the image that runs here or of
// the second one, which may be nil.
func openFile(ctx context.Context, name string, runs *vfield.Volume, image *manifest.Manifest, second *Second) (io.ReadSeeker, error) {
	volume, file := runs, name
	first, rest, _ := strings.Cut(name, "/")
	if hash, err := manifest.ParseInfohash(first); err == nil {
		file = rest
		switch {
		case hash == image.Infohash:
		case second == nil:
			volume = nil
		default:
			volume, image = second.Volume(hash)
		}
	}
	if volume == nil {
		return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
	}
	f, offset, ok := image.Lookup(file)
	if !ok {
		return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
	}
	return io.NewSectionReader(readerAt{ctx, volume}, offset, f.Size), nil
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
func savedPublications() string { return filepath.Join(savedDataDir(1), publicationsDir) }

// publicationsDir is that directory's name; on a server it is in the state directory.
const publicationsDir = "publications"
