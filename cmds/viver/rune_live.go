package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"viver.lan/internal/livechange"
	"viver.lan/internal/livelayer"
)

func newRuneSet(env environment) *cobra.Command {
	var l liveTarget
	cmd := &cobra.Command{
		Use:   "set RUNE KEY=VALUE...",
		Short: "Change settings of a rune on a running network",
		Long: `Change settings of a rune on a running network, as the table [rune.NAME] of viver.toml
has them. KEY= sets nothing, KEY alone takes back what was set here. The change is signed
with the owner's key.`,
		Example: `  viver rune set time servers=ntp.example.org --to 10.77.0.2
  viver rune set time servers --to 10.77.0.2`,
		Args: args(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			name := given[0]
			return l.change(cmd.Context(), env, "rune set "+strings.Join(given, " "), func(layer livelayer.Layer) (livelayer.Layer, error) {
				for _, pair := range given[1:] {
					key, text, set := strings.Cut(pair, "=")
					if key == "" {
						return layer, usageError{fmt.Errorf("%q: want KEY=VALUE", pair)}
					}
					value := &text
					if !set {
						value = nil
					}
					layer = livechange.Set(layer, name, key, value)
				}
				return layer, nil
			})
		},
	}
	l.register(cmd)
	return cmd
}

func newRuneHistory(env environment) *cobra.Command {
	var l liveTarget
	var o output
	cmd := &cobra.Command{
		Use:   "history",
		Short: "List what was added to a running network, newest first",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			changes, err := l.history(cmd.Context(), env)
			if err != nil {
				return err
			}
			return o.print(env.stdout, changes, func(w io.Writer) error { return writeHistory(w, changes) })
		},
	}
	o.register(cmd)
	l.registerNode(cmd)
	return cmd
}

// history returns the last changes of a network's live layer.
func (l *liveTarget) history(ctx context.Context, env environment) ([]livelayer.Change, error) {
	node, close, err := l.open(ctx, env)
	if err != nil {
		return nil, err
	}
	defer close()
	s, err := askStatus(ctx, node.socket)
	if err != nil {
		return nil, err
	}
	layer, pointer, err := node.layer(ctx, s)
	if len(layer.History) > 0 {
		layer.History[0].Digest = pointer.Digest
	}
	return layer.History, err
}

func writeHistory(w io.Writer, changes []livelayer.Change) error {
	if len(changes) == 0 {
		_, err := fmt.Fprintln(w, errNothingLive)
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "version\ttime\twhat")
	for _, c := range changes {
		fmt.Fprintf(t, "%d\t%s\t%s\n", c.Version, c.Time.Local().Format(time.DateTime), c.What)
	}
	return t.Flush()
}

func newRuneRollback(env environment) *cobra.Command {
	var l liveTarget
	cmd := &cobra.Command{
		Use:   "rollback [VERSION]",
		Short: "Take a running network back to how it was before the last change, or to a version",
		Long: `Take a running network back to how it was before the last change, or to a version that
viver rune history lists; 0 is how it was booted, also where no node has the layer in use any
more. That is a change, too: it gets a version of its own, and can be rolled back.`,
		Example: `  viver rune rollback --to 10.77.0.2`,
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			version, what := int64(-1), "rollback"
			if len(given) > 0 {
				v, err := strconv.ParseUint(given[0], 10, 63)
				if err != nil {
					return usageError{fmt.Errorf("%q is no version; viver rune history lists them", given[0])}
				}
				version, what = int64(v), "rollback to "+given[0]
				l.fromNone = v == 0
			}
			return l.replace(cmd.Context(), env, what, func(ctx context.Context, n liveNode, now livelayer.Layer) (livelayer.Layer, error) {
				return n.earlier(ctx, now, version)
			})
		},
	}
	l.register(cmd)
	return cmd
}

// earlier returns the layer of a version, or the one before now for -1.
func (n liveNode) earlier(ctx context.Context, now livelayer.Layer, version int64) (livelayer.Layer, error) {
	switch {
	case len(now.History) == 0:
		return now, errNothingLive
	case version == 0, version < 0 && len(now.History) == 1:
		return livechange.Empty(), nil
	}
	i := 1
	if version > 0 {
		i = slices.IndexFunc(now.History, func(c livelayer.Change) bool { return c.Version == uint64(version) })
	}
	switch {
	case i < 0:
		return now, fmt.Errorf("version %d is not among the last %d; viver rune history lists them", version, len(now.History))
	case i == 0:
		return now, errors.New("it is in use")
	}
	return n.get(ctx, now.History[i].Digest)
}
