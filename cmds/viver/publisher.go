package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"viver.lan/internal/control"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/manifest"
	"viver.lan/internal/operator"
	"viver.lan/internal/publication"
	"viver.lan/internal/sign"
)

// publisher speaks to a node for the owner of its network.
type publisher struct {
	env    environment
	owner  sign.PrivateKey
	node   liveNode
	status *control.Status
	// image is what the network boots now, former what it booted before: the same one where
	// nothing was published.
	image, former publication.Image
	// lost says that no node has the publication in use, and that both are what the node
	// runs.
	lost bool
}

// owner reads the owner's secret key.
func (l *liveTarget) owner(env environment) (key sign.PrivateKey, err error) {
	path, err := keyPath(env, l.key)
	if err != nil {
		return key, err
	}
	return sign.ReadPrivateKey(path)
}

// publisher connects to the node, and asks what its network boots. close must be called.
func (l *liveTarget) publisher(ctx context.Context, env environment, owner sign.PrivateKey) (p *publisher, close func(), err error) {
	p = &publisher{env: env, owner: owner}
	if p.node, close, err = l.open(ctx, env); err != nil {
		return nil, nil, err
	}
	if err := p.ask(ctx, cmp.Or(l.patience, publicationWait)); err != nil {
		close()
		return nil, nil, err
	}
	return p, close, nil
}

func (p *publisher) ask(ctx context.Context, patience time.Duration) (err error) {
	if p.status, err = onNetwork(ctx, p.node.Client, p.node.socket); err != nil {
		return err
	}
	for _, o := range p.status.Overrides {
		if o.Key != publication.Key {
			continue
		}
		if err := verify(o, p.status, p.owner.Public()); err != nil {
			return fmt.Errorf("the node shows a published image that you did not sign: %w", err)
		}
		if err := p.awaitPublication(ctx, patience); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, layerWait)
	defer cancel()
	data, err := p.node.Publication(ctx)
	if errors.Is(err, control.ErrVersion) {
		return fmt.Errorf("this one keeps no published images (%w): ask a machine that this network booted", err)
	}
	if err != nil {
		return err
	}
	now, err := publication.Decode(data)
	if err == nil {
		p.image, p.former, err = now.Check(p.owner.Public())
	}
	if err != nil {
		return fmt.Errorf("the node's image: %w", err)
	}
	if p.lost {
		fmt.Fprintf(p.env.stderr, "it did not come: the image that the node runs, %s (%s), counts as the one that is booted now\n", p.image.Manifest.Name, p.image.Info.Infohash)
	}
	return nil
}

// publicationWait is how long a node that has not got the publication may look for it. In
// that time it asks every node that answers (livestore pauses for 30 s at most).
const publicationWait = 45 * time.Second

var errHere = errors.New("the publication is here")

// awaitPublication waits until the node has the last publication. If it does not come, it
// is lost: a member that was away brought the override back, and the bytes were on
// machines that were switched off. That must not end publishing for good.
func (p *publisher) awaitPublication(ctx context.Context, patience time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	said := false
	err := p.node.Watch(waiting, func(s *control.Status, lost error) error {
		if lost != nil {
			return nil // its daemon is started again
		}
		p.status = s
		switch {
		case s.Published == nil: // its daemon has just begun
		case s.Published.Here:
			return errHere
		case !said:
			said = true
			fmt.Fprintf(p.env.stderr, "the node has not got the last publication, version %d, yet: %s; waiting for it, %.0f s at most\n",
				s.Published.Version, s.Published.Reason, patience.Seconds())
		}
		return nil
	})
	switch {
	case errors.Is(err, errHere):
		return nil
	case ctx.Err() != nil || !errors.Is(waiting.Err(), context.DeadlineExceeded):
		return err
	case !said:
		return fmt.Errorf("the node does not say whether it has the last publication: %w", err)
	}
	p.lost = true
	return nil
}

func (p *publisher) nothingPublished() bool {
	return p.image.Info.Infohash == p.former.Info.Infohash
}

// left names the nodes that run an image which others would no longer keep once next has
// taken the place of present. The machine with the medium has its own.
func (p *publisher) left(next, present manifest.Infohash) (names []string) {
	for _, m := range p.status.Members {
		// Which other images machines of this network run, the lost publication said.
		ours := p.status.Runs(m.Image) || p.lost && m.Network == p.status.Network
		if m.State == control.Alive && m.HTTPPort != 0 && !m.First && m.Image != next && m.Image != present && ours {
			names = append(names, cmp.Or(m.Hostname, m.Address.String()))
		}
	}
	return names
}

// present is the image that next takes the place of: the published one. If that is not
// offered, and nobody runs it, it may never be whole; then it is the one before it, so that
// the publication of another one mends that.
func (p *publisher) present(next manifest.Infohash) publication.Image {
	former := p.former.Info.Infohash
	if next != former && p.status.Offered() == former && len(p.left(next, former)) == 0 {
		return p.former
	}
	return p.image
}

// put publishes an image in the place of the one that is booted now.
func (p *publisher) put(ctx context.Context, image publication.Image) error {
	next := image.Info.Infohash
	present := p.present(next)
	if names := p.left(next, present.Info.Infohash); len(names) > 0 {
		return fmt.Errorf("these nodes run neither image %s nor the new one, and others would no longer keep what they run: %s\n"+
			"  - restart them first; machines boot image %s now\n"+
			"  - or, to have machines boot the image again that came before, first: viver image rollback",
			present.Info.Infohash, strings.Join(names, ", "), p.status.Offered())
	}
	data, err := publication.Publication{Image: image.Files, Former: present.Files}.Encode()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, layerWait)
	defer cancel()
	if err := p.node.AddPublication(ctx, data); err != nil {
		return err
	}
	version := nextSequence(p.status, p.owner.Public())
	o := signed(operator.Override{Key: publication.Key, Value: livelayer.PointTo(data).String(), Sequence: version}, p.status, p.owner)
	if err := p.node.PutOverride(ctx, o); err != nil {
		return err
	}
	fmt.Fprintf(p.env.stdout, "network %s, version %d: image %s (%s) takes the place of %s (%s)\n",
		printable(p.status.Network), version, image.Manifest.Name, next, present.Manifest.Name, present.Info.Infohash)
	return nil
}
