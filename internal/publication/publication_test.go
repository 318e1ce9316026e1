package publication

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"viver.lan/internal/description"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/sign"
)

func newKey(t *testing.T) sign.PrivateKey {
	t.Helper()
	key, err := sign.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// described is the description of an image with that content.
func described(t *testing.T, key sign.PrivateKey, content string) description.Files {
	t.Helper()
	root := filepath.Join(t.TempDir(), manifest.Root)
	if err := os.WriteFile(root, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	torrent, info, err := metainfo.Create("x", []metainfo.Source{{Name: manifest.Root, Path: root}}, metainfo.MinPieceLength, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &manifest.Manifest{Format: manifest.Format, Name: "x", Created: time.Unix(1e9, 0).UTC(), Infohash: info.Infohash,
		PieceLength: metainfo.MinPieceLength, Files: []manifest.FileInfo{{Name: manifest.Root, Size: int64(len(content))}}}
	var text bytes.Buffer
	if err := m.Write(&text); err != nil {
		t.Fatal(err)
	}
	return description.Files{Manifest: text.Bytes(), Signature: key.Sign(sign.Manifest, text.Bytes()), Metainfo: torrent}
}

func TestPublication(t *testing.T) {
	owner, stranger := newKey(t), newKey(t)
	p := Publication{Image: described(t, owner, "the new one"), Former: described(t, owner, "the old one")}
	data, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(data)
	if err != nil || !reflect.DeepEqual(back, p) {
		t.Errorf("it came back as %+v, %v", back, err)
	}
	image, former, err := back.Check(owner.Public())
	if err != nil || image.Manifest.Infohash != image.Info.Infohash || image.Info.Infohash == former.Info.Infohash {
		t.Errorf("images %v and %v, %v", image.Manifest, former.Manifest, err)
	}
	for _, n := range []int{0, 1, 512, 1024, len(data) / 2} {
		if _, err := Decode(data[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are a publication", n, len(data))
		}
	}
	mixed := p.Image
	mixed.Metainfo = p.Former.Metainfo
	for what, wrong := range map[string]Publication{
		"a stranger's image":  {Image: described(t, stranger, "new"), Former: p.Former},
		"after a stranger's":  {Image: p.Image, Former: described(t, stranger, "old")},
		"parts of two images": {Image: mixed, Former: p.Former},
		"nothing":             {},
	} {
		if _, _, err := wrong.Check(owner.Public()); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	p.Former.Metainfo = make([]byte, livelayer.MaxSize)
	if _, err := p.Encode(); err == nil {
		t.Error("one that no node takes is encoded")
	}
}

func FuzzDecode(f *testing.F) {
	p := Publication{Image: description.Files{Manifest: []byte("m"), Signature: []byte("s"), Metainfo: []byte("t")}}
	data, err := p.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Decode(data)
		if err != nil {
			return
		}
		again, err := p.Encode()
		if err != nil {
			return // it fits only without what stood around it
		}
		if back, err := Decode(again); err != nil || !reflect.DeepEqual(back, p) {
			t.Errorf("%+v came back as %+v, %v", p, back, err)
		}
	})
}
