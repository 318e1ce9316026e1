package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/control"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/manifest"
	"viver.lan/internal/operator"
	"viver.lan/internal/publication"
)

// A running network takes another image, whatever becomes of the publisher, and can be
// taken back. What machines run is not touched.
func TestPublishAnImage(t *testing.T) {
	t.Parallel()
	n := newImageNet(t, 161)
	const pieces, same = 320, 120
	old, next := n.image("old", pieces, same, n.owner), n.image("next", pieces+8, same, n.owner)
	a, b, c := n.start(old), n.start(old), n.start(old)
	b.runs()
	c.runs()
	l := liveTarget{socket: a.socket, key: n.key}

	// The publisher is killed three times.
	for _, percent := range []int{10, 50, 90} {
		var out bytes.Buffer
		ctx, kill := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.publish(ctx, environment{stdout: &out, stderr: io.Discard}, next.dir) }()
		b.until("some pieces are here", func(s control.Status) bool {
			if s.Published == nil || s.Published.Second == nil {
				return false
			}
			k := s.Published.Second
			return (k.Have-k.Reused)*100 >= (k.Pieces-k.Reused)*percent
		})
		kill()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("at %d %%: %v", percent, err)
		}
		k := b.Status().Published.Second
		t.Logf("killed at %d %%, node b has %d of %d pieces: %s", percent, k.Have, k.Pieces, out.String())
		b.runs()
		c.runs()
	}
	code, out, errs := operate(t, t.TempDir(), "image", "publish", next.dir, "--socket", a.socket, "--key", n.key)
	if code != exitOK || !strings.Contains(out, "is published already; going on") || !strings.Contains(out, "boot it") {
		t.Fatalf("%d, %s%s", code, out, errs)
	}
	for _, node := range n.nodes {
		node.offers(next, next)
		node.runs()
	}
	if got := b.Status().Published.Second.Reused; got < same-2 { // the last same piece and the last of all differ
		t.Errorf("b reused %d pieces, want about %d", got, same)
	}

	// A machine boots the new image, from one that runs the old one.
	d := n.start(next)
	d.runs()
	d.offers(next, old)
	if got := d.cluster.Network(); got != "lab" {
		t.Errorf("the new machine is on the network %q", got)
	}
	// The one with the medium of the old image goes: both images live on.
	a.stop()
	b.runs()
	d.runs()

	code, out, errs = operate(t, t.TempDir(), "image", "rollback", "--socket", d.socket, "--key", n.key)
	if code != exitOK || !strings.Contains(out, "image old") {
		t.Fatalf("%d, %s%s", code, out, errs)
	}
	b.offers(old, next)
	c.offers(old, next)
	d.offers(old, old)
	// A third image would take the second one from the machine that runs it.
	third := n.image("third", 8, 4, n.owner)
	code, out, errs = operate(t, t.TempDir(), "image", "publish", third.dir, "--socket", b.socket, "--key", n.key)
	if code != exitFailed || !strings.Contains(errs, "what they run: node-4") || !strings.Contains(errs, "viver image rollback") {
		t.Errorf("a third image: %d, %s%s", code, out, errs)
	}
}

// A publication whose bytes no machine has any more, and one of an image that never
// becomes whole, do not keep the owner from publishing another one.
func TestPublishAfterALoss(t *testing.T) {
	t.Parallel()
	n := newImageNet(t, 164)
	old, next, third := n.image("old", 8, 4, n.owner), n.image("next", 8, 4, n.owner), n.image("third", 8, 4, n.owner)
	a, b, c := n.start(old), n.start(old), n.start(old)
	s := a.Status()
	// The same bytes are made when the owner publishes that image again.
	data, err := publication.Publication{Image: next.Files, Former: old.Files}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	lost := signed(operator.Override{Key: publication.Key, Value: livelayer.PointTo(data).String(), Sequence: 7}, &s, n.owner)
	if err := a.cluster.Put(lost); err != nil {
		t.Fatal(err)
	}
	a.until("it knows of the lost one", func(s control.Status) bool { return s.Published != nil })
	var out, errs bytes.Buffer
	env := environment{stdout: &out, stderr: &errs}
	l := liveTarget{socket: a.socket, key: n.key, patience: time.Second}
	if err := l.rollbackImage(t.Context(), env); err == nil || !strings.Contains(err.Error(), "not known any more") {
		t.Errorf("rollback to what nobody knows: %v", err)
	}
	p, close, err := l.publisher(t.Context(), env, n.owner)
	if err != nil {
		t.Fatal(err)
	}
	defer close()
	if err := p.put(t.Context(), next.Image); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(errs.String(), "version 7, yet") || !strings.Contains(errs.String(), "it did not come: the image that the node runs, old") || !strings.Contains(out.String(), "version 8: image next") {
		t.Errorf("it said %s%s", &out, &errs)
	}
	// Nobody sends that one.
	for _, node := range []*imageNode{b, c} {
		node.until("it knows the next one", func(s control.Status) bool {
			return s.Published != nil && s.Published.Here && s.Published.Image == next.Info.Infohash
		})
	}
	code, said, wrong := operate(t, t.TempDir(), "image", "publish", third.dir, "--socket", b.socket, "--key", n.key)
	if code != exitOK || !strings.Contains(said, "takes the place of old") {
		t.Fatalf("%d, %s%s", code, said, wrong)
	}
	for _, node := range n.nodes {
		node.offers(third, third)
		node.runs()
	}
}

// What the owner did not sign for this network, or what it boots already, is refused.
func TestRefusedPublications(t *testing.T) {
	t.Parallel()
	n := newImageNet(t, 162)
	other := newImageNet(t, 163)
	old, stranger := n.image("old", 8, 4, n.owner), n.image("stranger", 8, 4, other.owner)
	damaged := n.image("damaged", 8, 4, n.owner)
	damaged.data[3*imagePiece] ^= 1
	if err := os.WriteFile(filepath.Join(damaged.dir, manifest.Root), damaged.data[:7*imagePiece], 0o600); err != nil {
		t.Fatal(err)
	}
	next := n.image("next", 8, 4, n.owner)
	a := n.start(old)
	torn := n.image("torn", 8, 4, n.owner)
	if err := os.Remove(filepath.Join(torn.dir, manifest.Kernel)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ args, why string }{
		{"publish " + stranger.dir + " --key " + n.key, "not signed with your key"},
		{"publish " + stranger.dir + " --key " + other.key, "the node's image"},
		{"publish " + damaged.dir + " --key " + n.key, "is damaged"},
		{"publish " + old.dir + " --key " + n.key, "boots image"},
		{"publish " + torn.dir + " --key " + n.key, "the file is missing"},
		{"publish /none --key " + n.key, "no such file"},
		{"rollback --key " + n.key, "no image was published"},
	} {
		code, out, errs := operate(t, t.TempDir(), append([]string{"image"}, strings.Fields(test.args+" --socket "+a.socket)...)...)
		if code != exitFailed || !strings.Contains(out+errs, test.why) {
			t.Errorf("%s: %d, %s%s", test.args, code, out, errs)
		}
	}
	// A node checks by itself.
	node := control.NewClient(a.socket)
	for what, p := range map[string]publication.Publication{"a stranger's": {Image: stranger.Files, Former: old.Files}, "no other": {Image: old.Files, Former: old.Files},
		"after a stranger's": {Image: next.Files, Former: stranger.Files}, "empty": {}} {
		data, err := p.Encode()
		if err == nil {
			err = node.AddPublication(t.Context(), data)
		}
		if err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	if err := node.AddPublication(t.Context(), []byte("nonsense")); err == nil {
		t.Error("nonsense is a publication")
	}
	if s := a.Status(); s.Published != nil || s.Offered() != old.Info.Infohash {
		t.Errorf("now it is %+v", s.Published)
	}
}
