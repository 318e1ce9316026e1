package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/description"
	"viver.lan/internal/disks"
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

// newOffer describes an image with that content, signed by key.
func newOffer(t *testing.T, key sign.PrivateKey, content string) (offer, *manifest.Manifest) {
	t.Helper()
	root := filepath.Join(t.TempDir(), manifest.Root)
	if err := os.WriteFile(root, []byte(content), 0o644); err != nil {
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
	return offer{"on this medium", description.Files{Manifest: text.Bytes(), Signature: key.Sign(sign.Manifest, text.Bytes()), Metainfo: torrent}}, m
}

func TestAcceptOnlyTheOwnersImage(t *testing.T) {
	owner, stranger := newKey(t), newKey(t)
	ours, m := newOffer(t, owner, "our root")
	theirs, _ := newOffer(t, stranger, "their root")
	long, _ := newOffer(t, owner, strings.Repeat("r", 100))
	changed := func(manifest, signature, metainfo []byte) offer {
		return offer{ours.from, description.Files{Manifest: manifest, Signature: signature, Metainfo: metainfo}}
	}
	const refusal = "the image on this medium is not signed by the owner of this initramfs: "
	for _, tt := range []struct {
		name    string
		offer   offer
		want    string // infohash
		refused bool
		says    string
	}{
		{name: "ours", offer: ours},
		{name: "ours, as asked for", offer: ours, want: m.Infohash.String()},
		{name: "from elsewhere", offer: theirs, refused: true,
			says: refusal + "signed by key " + stranger.Public().ID() + ", expected key " + owner.Public().ID()},
		{name: "their manifest, our signature", offer: changed(theirs.Manifest, ours.Signature, theirs.Metainfo), refused: true, says: refusal},
		{name: "a space more", offer: changed(append([]byte(" "), ours.Manifest...), ours.Signature, ours.Metainfo), refused: true, says: refusal},
		{name: "no JSON at all, not even decoded", offer: changed([]byte("{"), ours.Signature, ours.Metainfo), refused: true, says: refusal},
		{name: "signed for something else", offer: changed(ours.Manifest, owner.Sign(sign.Override, ours.Manifest), ours.Metainfo), refused: true, says: refusal},
		{name: "an empty signature", offer: changed(ours.Manifest, nil, ours.Metainfo), refused: true, says: refusal},
		{name: "their metainfo", offer: changed(ours.Manifest, ours.Signature, theirs.Metainfo), says: "the image directory is damaged"},
		{name: "another image of ours", offer: long, want: m.Infohash.String(), says: "the kernel command line asks for " + m.Infohash.String()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.offer.accept(owner.Public(), tt.want)
			if tt.says == "" {
				if err != nil || got.Infohash != m.Infohash {
					t.Fatal(got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.says) || errors.Is(err, errRefused) != tt.refused {
				t.Errorf("got %v, want %q, refused %v", err, tt.says, tt.refused)
			}
		})
	}
	if _, err := ours.accept(sign.PublicKey{}, ""); !errors.Is(err, errRefused) {
		t.Errorf("an initramfs without an owner takes images: %v", err)
	}
}

// TestOfferOfAMedium reads a medium's directory, then one that was never signed.
func TestOfferOfAMedium(t *testing.T) {
	ours, _ := newOffer(t, newKey(t), "our root")
	n := newNode()
	n.boot.First, n.boot.Medium = true, t.TempDir()
	if err := ours.Write(n.boot.Medium); err != nil {
		t.Fatal(err)
	}
	o, err := n.offered(t.Context())
	if err != nil || !reflect.DeepEqual(o, ours) {
		t.Fatalf("%+v, %v", o, err)
	}
	if err := os.Remove(filepath.Join(n.boot.Medium, manifest.Signature)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.offered(t.Context()); !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "it has no signature") {
		t.Errorf("not signed: %v", err)
	}
	if err := os.Remove(filepath.Join(n.boot.Medium, manifest.File)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.offered(t.Context()); err == nil || errors.Is(err, errRefused) {
		t.Errorf("no manifest: %v", err)
	}
}

// The menu of a medium names the image; one that has no menu has one image.
func TestImageOfTheMedium(t *testing.T) {
	first, second := manifest.Infohash{1}, manifest.Infohash{2}
	m := &disks.Medium{ID: "0123456789abcdef", Image: first, Dir: t.TempDir()}
	for _, dir := range []string{"viver/image", "viver/images/" + second.String()} {
		if err := os.MkdirAll(filepath.Join(m.Dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ chosen, dir, problem string }{
		{"", "viver/image", ""},
		{first.String(), "viver/image", ""},
		{second.String(), "viver/images/" + second.String(), ""},
		{manifest.Infohash{3}.String(), "", "lacks the image that its menu named"},
		{"../../etc", "", "viver.image= on the kernel command line"},
	} {
		dir, err := imageOn(m, tt.chosen)
		switch {
		case tt.problem != "":
			if err == nil || !strings.Contains(err.Error(), tt.problem) {
				t.Errorf("%q: %v, want %q", tt.chosen, err, tt.problem)
			}
		case err != nil || dir != filepath.Join(m.Dir, tt.dir):
			t.Errorf("%q: %s, %v, want %s", tt.chosen, dir, err, tt.dir)
		}
	}
}
