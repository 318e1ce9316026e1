package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"viver.lan/internal/bootmedium"
	"viver.lan/internal/livechange"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/media"
	"viver.lan/internal/runes"
)

// runePlace is where a rune is added or removed.
type runePlace struct {
	medium string // directory where a settings volume is mounted; "": the running network
	live   liveTarget
}

func (p *runePlace) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.medium, "medium", "", "`directory` where the volume "+media.SettingsLabel+" of a stick is mounted")
	_ = cmd.MarkFlagDirname("medium") // the flag exists
	p.live.register(cmd)
	cmd.MarkFlagsOneRequired("medium", "to", "socket")
	cmd.MarkFlagsMutuallyExclusive("medium", "to", "socket")
}

func newRuneAdd(env environment) *cobra.Command {
	var p runePlace
	var image string
	cmd := &cobra.Command{
		Use:   "add DIR",
		Short: "Add a rune to a medium or a running network, in the place of one of the same name",
		Long: `Add a rune in the place of one of the same name. It is checked first.

With --medium it is added to a medium: machines have it from their next boot on. With --to
or --socket it is added to the network of a node, without a reboot: all nodes have it
after some seconds, and machines that boot later, too. It is signed with the owner's
key.`,
		Example: `  viver rune add ./web-farm --medium /media/VIVERCONF
  viver rune add ./web-farm --to 10.77.0.2`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if p.medium == "" {
				return p.addLive(cmd.Context(), env, given[0], image)
			}
			b, err := bootmedium.AddRune(p.medium, given[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "%s: added to %s\n", b.Name, p.medium)
			return err
		},
	}
	p.register(cmd)
	cmd.Flags().StringVar(&image, "image", "", "`directory` of the image that the network runs: a rune that lacks something there is refused")
	_ = cmd.MarkFlagDirname("image") // the flag exists
	cmd.MarkFlagsMutuallyExclusive("medium", "image")
	return cmd
}

// addLive adds the rune of a folder to a running network.
func (p *runePlace) addLive(ctx context.Context, env environment, dir, image string) error {
	b, err := runes.LoadDir(dir)
	if err != nil {
		return err
	}
	r, err := checkRune(ctx, b, image)
	if err != nil {
		return err
	}
	if len(r.Errors)+len(r.Lacks) > 0 {
		if err := writeReport(env.stderr, b.Name, image, r); err != nil {
			return err
		}
		return fmt.Errorf("rune %s: %w: it is not sent", b.Name, errUnfit)
	}
	for _, what := range b.NextBoot() {
		if _, err := fmt.Fprintf(env.stdout, "at the next boot of each machine only: %s\n", what); err != nil {
			return err
		}
	}
	return p.live.change(ctx, env, "rune add "+b.Name, func(l livelayer.Layer) (livelayer.Layer, error) { return livechange.Add(l, b) })
}

func newRuneRemove(env environment) *cobra.Command {
	var p runePlace
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a rune from a medium or a running network",
		Long: `Remove a rune. On a running network (--to, --socket) one of the image or the medium is
removed, too: as long as the network remembers it, no node uses the rune.`,
		Example: `  viver rune remove web-farm --medium /media/VIVERCONF
  viver rune remove web-farm --to 10.77.0.2`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if p.medium == "" {
				return p.live.change(cmd.Context(), env, "rune remove "+given[0], func(l livelayer.Layer) (livelayer.Layer, error) { return livechange.Remove(l, given[0]) })
			}
			if err := bootmedium.RemoveRune(p.medium, given[0]); err != nil {
				return err
			}
			_, err := fmt.Fprintf(env.stdout, "%s: removed from %s\n", given[0], p.medium)
			return err
		},
	}
	p.register(cmd)
	return cmd
}
