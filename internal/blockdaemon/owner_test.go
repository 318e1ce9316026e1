package blockdaemon

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/sign"
)

func TestMetainfoOfTheOwner(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, data []byte) string {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	keys := [2]sign.PrivateKey{}
	public := [2]string{}
	for i := range keys {
		var err error
		if keys[i], err = sign.Generate(); err != nil {
			t.Fatal(err)
		}
		public[i] = put([]string{"owner.pub", "stranger.pub"}[i], keys[i].Public().Text())
	}
	create := func(content string) ([]byte, *metainfo.Info) {
		t.Helper()
		root := put(manifest.Root, []byte(content))
		torrent, info, err := metainfo.Create("x", []metainfo.Source{{Name: manifest.Root, Path: root}}, metainfo.MinPieceLength, nil)
		if err != nil {
			t.Fatal(err)
		}
		return torrent, info
	}
	data, other := create("other")
	otherTorrent := put("other.torrent", data)
	data, info := create("root")
	torrent := put(manifest.Metainfo, data)
	m := manifest.Manifest{Format: manifest.Format, Name: "x", Created: time.Unix(1e9, 0).UTC(), Infohash: info.Infohash,
		PieceLength: metainfo.MinPieceLength, Files: []manifest.FileInfo{{Name: manifest.Root, Size: 4}}}
	var text bytes.Buffer
	if err := m.Write(&text); err != nil {
		t.Fatal(err)
	}
	put(manifest.File, text.Bytes())
	refused := func(torrent, public, want string) {
		t.Helper()
		if _, err := readMetainfo(torrent, public); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	refused(torrent, public[0], manifest.Signature)
	put(manifest.Signature, keys[0].Sign(sign.Manifest, text.Bytes()))
	if got, err := readMetainfo(torrent, public[0]); err != nil || got.Infohash != info.Infohash {
		t.Error(got, err)
	}
	refused(torrent, public[1], "signed by key "+keys[0].Public().ID())
	refused(otherTorrent, public[0], "describes image "+other.Infohash.String())
	refused(torrent, torrent, "not a minisign public key")
}
