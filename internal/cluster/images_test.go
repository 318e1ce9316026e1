package cluster

import (
	"testing"

	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/manifest"
	"viver.lan/internal/notify"
)

// Who runs the published image, or keeps it or ours, is of our network.
func TestMembersOfTwoImages(t *testing.T) {
	published, other := manifest.Infohash{7}, manifest.Infohash{8}
	runs := func(image manifest.Infohash, keeps ImageMark) Member {
		return Member{State: Alive, Meta: Meta{Infohash: image, Keeps: keeps}}
	}
	c := &Cluster{changes: notify.Notifier{}, meta: Meta{Infohash: image()}, groups: groups{published: {}, other: {}}, members: map[identity.ID]Member{
		identitytest.Named("same"):      runs(image(), ImageMark{}),
		identitytest.Named("published"): runs(published, ImageMark{}),
		identitytest.Named("other"):     runs(other, ImageMark{}),
		identitytest.Named("keeps"):     runs(other, MarkOf(image())),
		identitytest.Named("before"):    runs(other, MarkOf(published)),
		identitytest.Named("elsewhere"): runs(other, MarkOf(manifest.Infohash{9})),
	}}
	c.sortOut()
	if n := len(c.Peers()); n != 2 {
		t.Errorf("%d peers before anything was published, want 2", n)
	}
	c.SetImages(published, image())
	if n := len(c.Peers()); n != 4 {
		t.Errorf("%d peers with the published image, want 4", n)
	}
	if _, left := c.groups[published]; left || len(c.groups) != 1 {
		t.Errorf("groups of others: %v", c.groups)
	}
}
