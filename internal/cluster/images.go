package cluster

import (
	"slices"

	"viver.lan/internal/manifest"
)

// A network runs one image, and while its machines get a new one, two. Which two, the
// owner's publication says (package publication); a machine that has booted the new one
// does not know that yet, but those that keep its pieces for the network say so.

// SetImages names the images that machines of this network run, beside the one that this
// machine runs itself. Whoever runs one of them is a peer.
func (c *Cluster) SetImages(images ...manifest.Infohash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Equal(c.images, images) {
		return
	}
	c.images = slices.Clone(images)
	for _, image := range images {
		delete(c.groups, image)
	}
	c.sortOut()
	c.changes.Notify()
}

// sortOut finds out again which members are of our network. It runs with c.mu held.
func (c *Cluster) sortOut() {
	for id, m := range c.members {
		m.otherImage = c.isOther(m.Meta)
		c.members[id] = m
	}
}

// isOther reports whether a member is of another network, as far as its image says. It
// runs with c.mu held.
func (c *Cluster) isOther(m Meta) bool {
	return !c.runsOurs(m.Infohash) && !c.marksOurs(m.Keeps)
}

// marksOurs reports whether a mark is that of an image which machines of our network run:
// one that still runs an image from before both of the publication keeps one of them. It
// runs with c.mu held.
func (c *Cluster) marksOurs(mark ImageMark) bool {
	return mark != ImageMark{} && (mark == MarkOf(c.meta.Infohash) || slices.ContainsFunc(c.images, func(i manifest.Infohash) bool { return mark == MarkOf(i) }))
}

// runsOurs reports whether machines of our network run an image. It runs with c.mu held.
func (c *Cluster) runsOurs(image manifest.Infohash) bool {
	return image == c.meta.Infohash || slices.Contains(c.images, image)
}
