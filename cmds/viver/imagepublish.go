package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"viver.lan/internal/control"
	"viver.lan/internal/event"
	"viver.lan/internal/identity"
	"viver.lan/internal/imagedir"
	"viver.lan/internal/manifest"
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

func (l *liveTarget) rollbackImage(ctx context.Context, env environment) error {
	owner, err := l.owner(env)
	if err != nil {
		return err
	}
	p, close, err := l.publisher(ctx, env, owner)
	if err != nil {
		return err
	}
	defer close()
	switch {
	case p.lost:
		return errors.New("which image came before is not known any more: viver image publish gives the network one")
	case p.nothingPublished():
		return errors.New("no image was published to this network since it was booted")
	}
	if err := p.put(ctx, p.former); err != nil {
		return err
	}
	return p.await(ctx, p.former.Manifest, func(*control.Status) {})
}

// publish gives the network the image in a directory.
func (l *liveTarget) publish(ctx context.Context, env environment, dir string) error {
	image, err := publication.ReadImage(dir)
	if err != nil {
		return fmt.Errorf("image %s: %w", dir, err)
	}
	owner, err := l.owner(env)
	if err != nil {
		return err
	}
	if err := verifyImage(ctx, env, dir, owner.Public()); err != nil {
		return err
	}
	data, err := vfield.OpenDir(dir, image.Info)
	if err != nil {
		return err
	}
	defer data.Close()
	p, close, err := l.publisher(ctx, env, owner)
	if err != nil {
		return err
	}
	defer close()
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

// verifyImage reads all of an image before a network is told of it: damaged, it would be
// published and never be whole there.
func verifyImage(ctx context.Context, env environment, dir string, owner sign.PublicKey) error {
	bar := newProgress(env.stderr)
	v, err := imagedir.Verify(ctx, dir, owner, func(done, total int64) { bar.show("verify", done, total) })
	bar.end()
	switch {
	case errors.Is(err, imagedir.ErrNotOwner):
		return fmt.Errorf("it is not signed with your key, as this network's images have to be: %w", err)
	case err != nil:
		return err
	}
	return v.Err()
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
