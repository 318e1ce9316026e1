package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	return offer{from: "on this medium", manifest: text.Bytes(), signature: key.Sign(sign.Manifest, text.Bytes()), metainfo: torrent}, m
}

func TestAcceptOnlyTheOwnersImage(t *testing.T) {
	owner, stranger := newKey(t), newKey(t)
	ours, m := newOffer(t, owner, "our root")
	theirs, _ := newOffer(t, stranger, "their root")
	long, _ := newOffer(t, owner, strings.Repeat("r", 100))
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
		{name: "their manifest, our signature", offer: offer{ours.from, theirs.manifest, ours.signature, theirs.metainfo}, refused: true, says: refusal},
		{name: "a space more", offer: offer{ours.from, append([]byte(" "), ours.manifest...), ours.signature, ours.metainfo}, refused: true, says: refusal},
		{name: "no JSON at all, not even decoded", offer: offer{ours.from, []byte("{"), ours.signature, ours.metainfo}, refused: true, says: refusal},
		{name: "signed for something else", offer: offer{ours.from, ours.manifest, owner.Sign(sign.Override, ours.manifest), ours.metainfo}, refused: true, says: refusal},
		{name: "an empty signature", offer: offer{ours.from, ours.manifest, nil, ours.metainfo}, refused: true, says: refusal},
		{name: "their metainfo", offer: offer{ours.from, ours.manifest, ours.signature, theirs.metainfo}, says: "the image directory is damaged"},
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
	for name, data := range map[string][]byte{manifest.File: ours.manifest, manifest.Signature: ours.signature, manifest.Metainfo: ours.metainfo} {
		if err := os.WriteFile(filepath.Join(n.boot.Medium, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o, err := n.offered(t.Context())
	if err != nil || !bytes.Equal(o.manifest, ours.manifest) || !bytes.Equal(o.signature, ours.signature) || !bytes.Equal(o.metainfo, ours.metainfo) {
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
