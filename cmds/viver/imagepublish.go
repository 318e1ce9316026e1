package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"viver.lan/internal/control"
	"viver.lan/internal/description"
	"viver.lan/internal/event"
	"viver.lan/internal/identity"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/manifest"
	"viver.lan/internal/operator"
	"viver.lan/internal/piecestore"
	"viver.lan/internal/publication"
	"viver.lan/internal/sign"
	"viver.lan/internal/vfield"
)

func newImagePublish(env environment) *cobra.Command {
	var l liveTarget
	cmd := &cobra.Command{
		Use:   "publish IMAGE",
		Short: "Give a running network another image, which its machines boot next time",
		Long: `Give a running network another image. Nodes take it in the background, and go on with the one
that they run; each boots the other one at its next boot. This command sends the image, and ends
when the network no longer needs it. Ctrl-C stops nothing that runs: the same command goes on
where it was. The image has to be signed with the key that signed the network's.`,
		Example: `  viver image publish debian --to 10.77.0.2`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			return l.publish(cmd.Context(), env, given[0])
		},
	}
	l.register(cmd)
	return cmd
}

func newImageRollback(env environment) *cobra.Command {
	var l liveTarget
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Have machines boot the image again that came before the published one",
		Long: `Have machines boot the image again that came before the published one. Nodes keep both, so
nothing is sent. That is a publication, too: another rollback takes it back.`,
		Example: `  viver image rollback --to 10.77.0.2`,
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return l.rollbackImage(cmd.Context(), env) },
	}
	l.register(cmd)
	return cmd
}

// publisher speaks to a node for the owner of its network.
type publisher struct {
	env    environment
	owner  sign.PrivateKey
	node   liveNode
	status *control.Status
	// image is what the network boots now, former what it booted before: the same one where
	// nothing was published.
	image, former publication.Image
}

// publisher connects to the node, and asks what its network boots. close must be called.
func (l *liveTarget) publisher(ctx context.Context, env environment) (p *publisher, close func(), err error) {
	path, err := keyPath(env, l.key)
	if err != nil {
		return nil, nil, err
	}
	p = &publisher{env: env}
	if p.owner, err = sign.ReadPrivateKey(path); err != nil {
		return nil, nil, err
	}
	if p.node, close, err = l.open(ctx, env); err != nil {
		return nil, nil, err
	}
	if err := p.ask(ctx); err != nil {
		close()
		return nil, nil, err
	}
	return p, close, nil
}

func (p *publisher) ask(ctx context.Context) (err error) {
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
		if s := p.status.Published; s != nil && !s.Here {
			return fmt.Errorf("the node has not got the last publication yet: %s; try again, or ask another node", s.Reason)
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
	return nil
}

func (p *publisher) nothingPublished() bool {
	return p.image.Info.Infohash == p.former.Info.Infohash
}

// left names the nodes that run an image which others would no longer keep. The machine
// with the medium has its own.
func (p *publisher) left(next manifest.Infohash) (names []string) {
	for _, m := range p.status.Members {
		if m.State == control.Alive && m.HTTPPort != 0 && !m.First && m.Image != next && m.Image != p.image.Info.Infohash && p.status.Runs(m.Image) {
			names = append(names, cmp.Or(m.Hostname, m.Address.String()))
		}
	}
	return names
}

// put publishes an image in the place of the one that is booted now.
func (p *publisher) put(ctx context.Context, image publication.Image) error {
	if names := p.left(image.Info.Infohash); len(names) > 0 {
		return fmt.Errorf("these nodes still run the image before the one that machines boot now, and others would no longer keep it: restart them first: %s", strings.Join(names, ", "))
	}
	data, err := publication.Publication{Image: image.Files, Former: p.image.Files}.Encode()
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
		printable(p.status.Network), version, image.Manifest.Name, image.Info.Infohash, p.image.Manifest.Name, p.image.Info.Infohash)
	return nil
}

func (l *liveTarget) rollbackImage(ctx context.Context, env environment) error {
	p, close, err := l.publisher(ctx, env)
	if err != nil {
		return err
	}
	defer close()
	if p.nothingPublished() {
		return errors.New("no image was published to this network since it was booted")
	}
	if err := p.put(ctx, p.former); err != nil {
		return err
	}
	return p.await(ctx, p.former.Manifest, func(*control.Status) {})
}

// publish gives the network the image in a directory.
func (l *liveTarget) publish(ctx context.Context, env environment, dir string) error {
	image, err := openPublished(dir)
	if err != nil {
		return err
	}
	data, err := vfield.OpenDir(dir, image.Info)
	if err != nil {
		return err
	}
	defer data.Close()
	p, close, err := l.publisher(ctx, env)
	if err != nil {
		return err
	}
	defer close()
	if err := image.SignedBy(p.owner.Public()); err != nil {
		return fmt.Errorf("image %s is not signed with your key, which this network's images are: %w", dir, err)
	}
	switch {
	case image.Info.Infohash != p.image.Info.Infohash:
		if err := p.put(ctx, image); err != nil {
			return err
		}
	case p.nothingPublished():
		return fmt.Errorf("the network boots image %s already", image.Info.Infohash)
	default:
		fmt.Fprintf(env.stdout, "image %s is published already; going on\n", image.Info.Infohash)
	}
	return p.seed(ctx, image, data)
}

func openPublished(dir string) (image publication.Image, err error) {
	if image.Files, err = description.Read(description.In(dir)); err != nil {
		return image, fmt.Errorf("image %s: %w", dir, err)
	}
	if image.Manifest, image.Info, err = image.Decode(); err != nil {
		return image, fmt.Errorf("image %s: %w", dir, err)
	}
	return image, nil
}

// seedPieces is how many pieces a publisher has in memory.
const seedPieces = 64

// noAnswer is how long nodes may not answer before the publisher says what may be wrong.
const noAnswer = 15 * time.Second

// seed sends an image until the network can do without it.
func (p *publisher) seed(ctx context.Context, image publication.Image, data *vfield.Dir) error {
	temporary, err := os.MkdirTemp("", "viver-publish-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	store, err := piecestore.Open(piecestore.Config{Path: filepath.Join(temporary, "pieces"), Info: image.Info,
		Budget: min(image.Info.Size, seedPieces*image.Info.PieceLength)})
	if err != nil {
		return err
	}
	defer store.Close()
	key, err := identity.Generate()
	if err != nil {
		return err
	}
	volume, err := vfield.New(vfield.Config{Info: image.Info, Store: store, Medium: data, Key: key,
		Listen: netip.AddrPortFrom(netip.IPv4Unspecified(), 0)})
	if err != nil {
		return err
	}
	known, begin, hinted := make(map[netip.AddrPort]bool), time.Now(), false
	g, running := errgroup.WithContext(ctx)
	running, end := context.WithCancel(running)
	g.Go(func() error { return volume.Run(running) })
	g.Go(func() error {
		defer end()
		return p.await(running, image.Manifest, func(s *control.Status) {
			for _, m := range s.Members {
				port, ok := m.PeerFor(image.Info.Infohash)
				addr := netip.AddrPortFrom(m.Address, port)
				if ok && m.State == control.Alive && !known[addr] {
					known[addr] = true
					volume.AddPeer(addr, false)
				}
			}
			if !hinted && time.Since(begin) > noAnswer && len(known) > 0 && len(volume.Status().Peers) == 0 {
				hinted = true
				fmt.Fprintf(p.env.stderr, "no node answers on port %d: run this on a computer of the boot network, or on a node with --socket\n", control.SecondSwarmPort)
			}
		})
	})
	return g.Wait()
}

var errPublished = errors.New("the network has it")

// await shows how far an image is until the node offers it to machines that boot, and
// nobody else is needed for that. It gives each status to take.
func (p *publisher) await(ctx context.Context, image *manifest.Manifest, take func(*control.Status)) error {
	bar, begin, said := newProgress(p.env.stderr), time.Now(), ""
	defer bar.end()
	err := p.node.Watch(ctx, func(s *control.Status, lost error) error {
		switch {
		case lost != nil:
			return nil // its daemon is started again
		case s.Published != nil && s.Published.Here && s.Published.Image != image.Infohash && s.Published.Version > p.version():
			return fmt.Errorf("version %d has been published meanwhile, with image %s", s.Published.Version, s.Published.Image)
		}
		take(s)
		have, ok := copiesOf(s, image.Infohash)
		if !ok {
			if reason := whyNotKept(s); reason != said {
				said = reason
				fmt.Fprintf(p.env.stderr, "the node does not keep the image yet: %s\n", reason)
			}
			return nil
		}
		bar.show("publish", int64(have.Pieces-have.Missing)*image.Size()/int64(max(have.Pieces, 1)), image.Size())
		if have.Independent && s.Offered() == image.Infohash {
			bar.end()
			fmt.Fprintf(p.env.stdout, "%d nodes keep image %s, after %.1f s; machines that boot from now on boot it\n", have.Nodes, image.Name, time.Since(begin).Seconds())
			return errPublished
		}
		return nil
	})
	switch {
	case errors.Is(err, errPublished):
		return nil
	case errors.Is(err, context.Canceled):
		bar.end()
		fmt.Fprintln(p.env.stderr, "the network does not have the whole image yet, and goes on with the one that it runs; the same command continues")
	}
	return err
}

// whyNotKept is why a node does not keep the published image, "" where it is about to.
func whyNotKept(s *control.Status) string {
	if s.Published == nil {
		return ""
	}
	return s.Published.Reason
}

// version is that of what was published before.
func (p *publisher) version() uint64 {
	if p.status.Published == nil {
		return 0
	}
	return p.status.Published.Version
}

// copiesOf tells of which pieces of an image the network has copies, as a node knows it;
// ok is false while that node does not keep the image.
func copiesOf(s *control.Status, image manifest.Infohash) (have event.Independence, ok bool) {
	switch {
	case s.Infohash == image:
		return s.Independence, true
	case s.Published != nil && s.Published.Second != nil && s.Published.Second.Image == image:
		return s.Published.Second.Independence, true
	}
	return have, false
}

// publishedLines are of viver status: what there is beside the image that the node runs.
func publishedLines(s *control.Status) (lines []string) {
	p := s.Published
	switch {
	case p == nil:
		return nil
	case !p.Here:
		return []string{fmt.Sprintf("published\tversion %d, not here yet: %s", p.Version, p.Reason)}
	}
	lines = append(lines, fmt.Sprintf("published\tversion %d: %s (%s), after %s; machines boot %s", p.Version, p.Name, p.Image, p.Former, p.Offered))
	if k := p.Second; k != nil {
		return append(lines, fmt.Sprintf("second image\t%s: %d of %d pieces, %d of them reused; %s of %s used; %s", k.Image, k.Have, k.Pieces, k.Reused,
			megabytes(uint64(k.Used)), megabytes(uint64(k.Budget)), k.Independence))
	}
	if p.Reason != "" {
		lines = append(lines, "second image\tnot kept here: "+p.Reason)
	}
	return lines
}
