package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"viver.lan/internal/control"
	"viver.lan/internal/livechange"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/operator"
	"viver.lan/internal/shell"
	"viver.lan/internal/sign"
)

// liveTarget is a running network, whose live layer is shown or changed.
type liveTarget struct {
	to, socket, key string
	// fromNone is for a change that keeps nothing of the layer in use, so that it need not be
	// had.
	fromNone bool
	// patience is how long a publication may take to come to the node, 0 for publicationWait.
	patience time.Duration
}

// register is for commands that change the network.
func (l *liveTarget) register(cmd *cobra.Command) {
	l.registerNode(cmd)
	cmd.Flags().StringVar(&l.key, "key", "", "the owner's secret key `file` (default: "+sign.KeyFile+" in ~/.config/viver)")
}

// registerNode is for those that ask it.
func (l *liveTarget) registerNode(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.to, "to", "", "any `node` of the network, as ssh takes it")
	cmd.Flags().StringVar(&l.socket, "socket", control.Socket, "where the block daemon listens")
	cmd.MarkFlagsMutuallyExclusive("to", "socket")
}

// liveNode is the node that is asked.
type liveNode struct {
	*control.Client
	socket string
}

// open connects to the node. close must be called.
func (l *liveTarget) open(ctx context.Context, env environment) (n liveNode, close func(), err error) {
	if l.to == "" {
		return liveNode{control.NewClient(l.socket), l.socket}, func() {}, nil
	}
	program, err := shell.Find()
	if err != nil {
		return n, nil, err
	}
	socket, close, err := shell.Forward{Program: program, Node: l.to, Socket: control.Socket, Stderr: env.stderr}.Open(ctx)
	return liveNode{control.NewClient(socket), socket}, close, err
}

// layerWait is how long a node may take to take a layer or to get one from another node.
const layerWait = time.Minute

// errNothingLive is said where there is no history.
var errNothingLive = errors.New("nothing was added to this network since it was booted")

// layer returns the live layer that the node says is in use and its pointer, an empty one
// for none.
func (n liveNode) layer(ctx context.Context, s *control.Status) (l livelayer.Layer, p livelayer.Pointer, err error) {
	for _, o := range s.Overrides {
		if o.Key == livelayer.Key {
			p, err = livelayer.ParsePointer(o.Value)
		}
	}
	if err != nil || p == (livelayer.Pointer{}) {
		return livechange.Empty(), p, err
	}
	if l, err = n.get(ctx, p.Digest); err != nil {
		err = fmt.Errorf("the live layer in use: %w (where no node has it any more, viver rune rollback 0 takes its place)", err)
	}
	return l, p, err
}

func (n liveNode) get(ctx context.Context, d livelayer.Digest) (l livelayer.Layer, err error) {
	ctx, cancel := context.WithTimeout(ctx, layerWait)
	defer cancel()
	data, err := n.Layer(ctx, d)
	if err != nil {
		return l, err
	}
	return livelayer.Decode(data)
}

// change makes a new live layer of the one in use, has the node tell all others, and waits
// until they have it. what describes it.
func (l *liveTarget) change(ctx context.Context, env environment, what string, edit func(livelayer.Layer) (livelayer.Layer, error)) error {
	return l.replace(ctx, env, what, func(_ context.Context, _ liveNode, now livelayer.Layer) (livelayer.Layer, error) { return edit(now) })
}

// replace does so for an edit that asks the node.
func (l *liveTarget) replace(ctx context.Context, env environment, what string, edit func(context.Context, liveNode, livelayer.Layer) (livelayer.Layer, error)) error {
	path, err := keyPath(env, l.key)
	if err != nil {
		return err
	}
	owner, err := sign.ReadPrivateKey(path)
	if err != nil {
		return err
	}
	node, close, err := l.open(ctx, env)
	if err != nil {
		return err
	}
	defer close()
	status, err := onNetwork(ctx, node.Client, node.socket)
	if err != nil {
		return err
	}
	var used operator.Override
	for _, o := range status.Overrides {
		if o.Key != livelayer.Key {
			continue
		}
		if err := verify(o, status, owner.Public()); err != nil {
			return fmt.Errorf("the node shows a live layer that you did not sign: %w", err)
		}
		used = o
	}
	now, pointer, err := node.layer(ctx, status)
	if err != nil && l.fromNone {
		now, err = livechange.Empty(), nil
		now.History = []livelayer.Change{{Version: used.Sequence, Time: time.Unix(0, int64(used.Time)).UTC().Truncate(time.Second), What: "changes that no node has"}}
	}
	if err != nil {
		return err
	}
	next, err := edit(ctx, node, now)
	if err != nil {
		return err
	}
	change := livelayer.Change{Version: nextSequence(status, owner.Public()), Time: time.Now().UTC().Truncate(time.Second), What: printable(what)}
	data, err := next.After(now, pointer, change).Encode()
	if err != nil {
		return err
	}
	made := uint64(0)
	if len(now.History) > 0 {
		made = now.History[0].Version
	}
	fmt.Fprintf(env.stdout, "network %s: the next version is made of version %d\n", printable(status.Network), made) // the node could show an older one
	if err := node.put(ctx, data, signed(operator.Override{Key: livelayer.Key, Value: livelayer.PointTo(data).String(), Sequence: change.Version}, status, owner)); err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "version %d: %s\n", change.Version, change.What)
	return node.spread(ctx, env.stdout, livelayer.PointTo(data), change.Version)
}

// printable is what a change's description may have.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// put sends a layer and the override that points to it.
func (n liveNode) put(ctx context.Context, layer []byte, o operator.Override) error {
	ctx, cancel := context.WithTimeout(ctx, layerWait)
	defer cancel()
	if err := n.AddLayer(ctx, layer); err != nil {
		return err
	}
	return n.PutOverride(ctx, o)
}

// spreadWait is how long all nodes may take to have a layer before we stop to wait.
const spreadWait = time.Minute

var errSpread = errors.New("all have it")

// spread shows how many nodes have a layer until all do.
func (n liveNode) spread(ctx context.Context, w io.Writer, p livelayer.Pointer, version uint64) error {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, spreadWait)
	defer cancel()
	shown := ""
	var missing []string
	err := n.Watch(ctx, func(s *control.Status, lost error) error {
		if lost != nil {
			return nil // its daemon is started again
		}
		if l := s.Live; l != nil && (l.Version > version || l.Version == version && l.Digest != p.Digest) { // two operators may count to the same one
			return fmt.Errorf("another version %d has taken the place of version %d: viver rune history shows what is in use", l.Version, version)
		}
		have := 0
		have, missing = holders(s, p.Digest.Mark())
		// Nodes may come or die meanwhile.
		if count := fmt.Sprintf("%d of %d nodes have it", have, have+len(missing)); count != shown {
			shown = count
			fmt.Fprintf(w, "%s after %.1f s\n", count, time.Since(begin).Seconds())
		}
		if len(missing) == 0 {
			return errSpread
		}
		return nil
	})
	switch {
	case errors.Is(err, errSpread):
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("after %.0f s these nodes do not have it: %s; they go on trying (viver status says why)", spreadWait.Seconds(), strings.Join(missing, ", "))
	}
	return err
}

// holders says how many live nodes have a layer, and which do not.
func holders(s *control.Status, mark livelayer.Mark) (have int, missing []string) {
	for _, m := range s.Members {
		switch {
		case m.State != control.Alive || m.HTTPPort == 0 || !s.Runs(m.Image): // no node of this network
		case m.Live == mark.String():
			have++
		default:
			missing = append(missing, cmp.Or(m.Hostname, m.Address.String()))
		}
	}
	return have, missing
}
