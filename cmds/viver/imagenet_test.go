package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"

	"viver.lan/internal/blockdaemon"
	"viver.lan/internal/cluster"
	"viver.lan/internal/control"
	"viver.lan/internal/description"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/livestore"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/notify"
	"viver.lan/internal/operator"
	"viver.lan/internal/piecestore"
	"viver.lan/internal/publication"
	"viver.lan/internal/roles"
	"viver.lan/internal/sign"
	"viver.lan/internal/vfield"
)

// imageNet is a network whose nodes have what of a block daemon and an agent an image has
// to do with: two volumes, the membership, the socket, and the publications that are
// served.
type imageNet struct {
	t     *testing.T
	net   byte // its addresses are 127.0.net.N
	owner sign.PrivateKey
	key   string // file of the owner's key
	nodes []*imageNode
}

// imageNode is one of its machines.
type imageNode struct {
	notify.Notifier
	publishedImage
	t       *testing.T
	cluster *cluster.Cluster
	second  *blockdaemon.Second
	volume  *vfield.Volume
	socket  string
	stop    func()
}

// publishedImage is an image directory with its bytes.
type publishedImage struct {
	publication.Image
	dir  string
	data []byte
}

func newImageNet(t *testing.T, number byte) *imageNet {
	t.Helper()
	n := &imageNet{t: t, net: number, key: filepath.Join(t.TempDir(), "owner.key")}
	var err error
	if n.owner, _, err = sign.OpenKey(n.key); err != nil {
		t.Fatal(err)
	}
	return n
}

const imagePiece = 64 << 10

// image makes one of so many pieces, of which the first are those of every other.
func (n *imageNet) image(name string, pieces, same int, owner sign.PrivateKey) publishedImage {
	n.t.Helper()
	im := publishedImage{dir: n.t.TempDir(), data: make([]byte, pieces*imagePiece-1234)}
	rand.NewChaCha8([32]byte{1}).Read(im.data[:same*imagePiece])
	rand.NewChaCha8([32]byte([]byte(name + strings.Repeat(" ", 32))[:32])).Read(im.data[same*imagePiece:])
	m := &manifest.Manifest{Format: manifest.Format, Name: name, Arch: "amd64", Created: time.Unix(1e9, 0).UTC(), PieceLength: imagePiece}
	var initramfs bytes.Buffer
	records := cpio.Newc.Writer(&initramfs)
	if err := cpio.WriteRecords(records, []cpio.Record{cpio.StaticFile(manifest.OwnerKey, string(owner.Public().Text()), 0o644)}); err != nil {
		n.t.Fatal(err)
	}
	if err := cpio.WriteTrailer(records); err != nil {
		n.t.Fatal(err)
	}
	cut, end := (pieces-1)*imagePiece, len(im.data)-initramfs.Len()
	copy(im.data[end:], initramfs.Bytes())
	var sources []metainfo.Source
	for _, f := range []struct {
		name string
		data []byte
	}{{manifest.Root, im.data[:cut]}, {manifest.Kernel, im.data[cut:end]}, {manifest.Initramfs, im.data[end:]}} {
		file := filepath.Join(im.dir, f.name)
		if err := os.WriteFile(file, f.data, 0o600); err != nil {
			n.t.Fatal(err)
		}
		sources = append(sources, metainfo.Source{Name: f.name, Path: file})
		m.Files = append(m.Files, manifest.FileInfo{Name: f.name, Size: int64(len(f.data)), SHA256: sha256.Sum256(f.data)})
	}
	torrent, info, err := metainfo.Create(name, sources, imagePiece, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	m.Infohash = info.Infohash
	var text bytes.Buffer
	if err := m.Write(&text); err != nil {
		n.t.Fatal(err)
	}
	im.Image = publication.Image{Manifest: m, Info: info,
		Files: description.Files{Manifest: text.Bytes(), Signature: owner.Sign(sign.Manifest, text.Bytes()), Metainfo: torrent}}
	if err := im.Write(im.dir); err != nil {
		n.t.Fatal(err)
	}
	return im
}

// start starts the next node, which runs an image, and was booted by the node before it:
// the first has the medium.
func (n *imageNet) start(im publishedImage) *imageNode {
	n.t.Helper()
	i := len(n.nodes) + 1
	addr := netip.AddrFrom4([4]byte{127, 0, n.net, byte(i)})
	name := "node-" + string(rune('0'+i))
	node := &imageNode{publishedImage: im, t: n.t}
	log := slog.New(slog.NewTextHandler(n.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})).With("node", i)
	store, err := piecestore.Open(piecestore.Config{Path: filepath.Join(n.t.TempDir(), "pieces"), Info: im.Info})
	if err != nil {
		n.t.Fatal(err)
	}
	key := identitytest.Key(n.t, name)
	cfg := vfield.Config{Info: im.Info, Store: store, Key: key, Listen: netip.AddrPortFrom(addr, control.SwarmPort), Changed: node.Notify, Log: log}
	meta := cluster.Meta{Hostname: name, SwarmPort: control.SwarmPort, HTTPPort: filesPort, Infohash: im.Info.Infohash}
	var seeds []netip.AddrPort
	if i == 1 {
		meta.First, meta.Network = true, "lab"
		dir, err := vfield.OpenDir(im.dir, im.Info)
		if err != nil {
			n.t.Fatal(err)
		}
		n.t.Cleanup(func() { dir.Close() })
		cfg.Medium = dir
	} else {
		seeds = append(seeds, n.nodes[i-2].cluster.Addr())
	}
	public := n.owner.Public()
	if node.volume, err = vfield.New(cfg); err != nil {
		n.t.Fatal(err)
	}
	node.cluster, err = cluster.New(cluster.Config{Key: key, Start: 1, Bind: addr, Network: netip.MustParsePrefix("127.0.0.0/8"), Seeds: seeds, Meta: meta,
		Verify: func(message, signature []byte) error { return public.Verify(sign.Override, message, signature) }, Log: log})
	if err != nil {
		n.t.Fatal(err)
	}
	publications, pieces := n.t.TempDir(), n.t.TempDir()
	node.second = blockdaemon.NewSecond(blockdaemon.SecondConfig{Owner: public, Runs: im.Image, Pieces: store, Dir: publications, Describe: n.t.TempDir(),
		Cluster: node.cluster, Key: key, Listen: netip.AddrPortFrom(addr, control.SecondSwarmPort),
		Room: func(info *metainfo.Info) (piecestore.Config, error) {
			return piecestore.Config{Path: filepath.Join(pieces, info.Infohash.String()), Info: info}, nil
		},
		Busy: func() bool { return false }, Changed: node.Notify, Log: log})
	files := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := livestore.Open(publications, path.Base(r.URL.Path))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		defer f.Close()
		http.ServeContent(w, r, "", time.Time{}, f)
	})}
	listener, err := net.Listen("tcp", netip.AddrPortFrom(addr, filesPort).String())
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	context.AfterFunc(ctx, func() { files.Close() })
	var parts sync.WaitGroup
	for _, part := range []func(context.Context) error{node.volume.Run, node.cluster.Run, node.second.Run, following(node.cluster, node.Notify),
		func(ctx context.Context) error {
			return blockdaemon.FollowMembers(ctx, node.cluster, node.volume, im.Info.Infohash, netip.Addr{})
		},
		func(context.Context) error {
			if err := files.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		}} {
		parts.Go(func() {
			if err := part(ctx); err != nil {
				n.t.Errorf("%s: %v", name, err)
			}
		})
	}
	node.stop = sync.OnceFunc(func() { cancel(); parts.Wait(); store.Close() })
	n.t.Cleanup(node.stop)
	node.socket = serve(n.t, node)
	n.nodes = append(n.nodes, node)
	return node
}

func (n *imageNode) MemberStatus() control.Status { return n.Status() }

func (n *imageNode) Status() control.Status {
	s := control.Status{Network: n.cluster.Network(), Overrides: n.cluster.Overrides(), Infohash: n.Info.Infohash, Image: n.Manifest.Name,
		Independence: n.volume.Independence(), Published: n.second.Status(true)}
	for _, m := range n.cluster.Members() {
		s.Members = append(s.Members, control.Member{ID: m.ID, Hostname: m.Meta.Hostname, HTTPPort: m.Meta.HTTPPort, SwarmPort: m.Meta.SwarmPort, Network: m.Meta.Network, State: control.MemberState(m.State),
			Address: m.Addr.Addr(), Image: m.Meta.Infohash, Keeps: m.Meta.Keeps.String()})
	}
	return s
}

func (*imageNode) Open(context.Context, string) (io.ReadSeeker, error) { return nil, os.ErrNotExist }
func (*imageNode) SetRoles(context.Context, []roles.Name) error        { return nil }
func (n *imageNode) AddPublication(data []byte) error                  { return n.second.Store().Add(data) }
func (n *imageNode) Publication() ([]byte, error)                      { return n.second.Publication() }
func (n *imageNode) PutOverride(o operator.Override) error {
	if o.Key == publication.Key {
		return n.second.Store().Put(o)
	}
	return n.cluster.Put(o)
}

// until waits for changes of the node until something holds.
func (n *imageNode) until(what string, holds func(control.Status) bool) {
	n.t.Helper()
	changed, stop := n.Watch()
	defer stop()
	late := time.After(3 * time.Minute)
	for !holds(n.Status()) {
		select {
		case <-changed:
		case <-late:
			n.t.Fatalf("never: %s; the status is %+v", what, n.Status())
		}
	}
}

// runs reads all of the image that the node runs.
func (n *imageNode) runs() {
	n.t.Helper()
	got := make([]byte, len(n.data))
	ctx, cancel := context.WithTimeout(n.t.Context(), 3*time.Minute)
	defer cancel()
	if err := n.volume.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, n.data) {
		n.t.Errorf("its image %s is not as it was: %v", n.Manifest.Name, err)
	}
}

// offers waits until the node boots others with an image, and has all of another one.
func (n *imageNode) offers(image, second publishedImage) {
	n.t.Helper()
	n.until("it offers "+image.Manifest.Name+" and keeps "+second.Manifest.Name, func(s control.Status) bool {
		p := s.Published
		return s.Offered() == image.Info.Infohash && p != nil && p.Second != nil && p.Second.Image == second.Info.Infohash && p.Second.Have == p.Second.Pieces
	})
}
