package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"viver.lan/internal/bootmedium"
	"viver.lan/internal/media"
)

// runePlace is where a rune is added or removed.
type runePlace struct {
	medium string // directory where a settings volume is mounted
}

func (p *runePlace) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.medium, "medium", "", "`directory` where the volume "+media.SettingsLabel+" of a stick is mounted")
	_ = cmd.MarkFlagDirname("medium") // the flag exists
	cmd.MarkFlagsOneRequired("medium")
}

func newRuneAdd(env environment) *cobra.Command {
	var p runePlace
	cmd := &cobra.Command{
		Use:   "add DIR",
		Short: "Add a rune to a medium, in the place of one of the same name",
		Long: `Add a rune to a medium, in the place of one of the same name. It is checked first. The
machines have it from their next boot on.`,
		Example: `  viver rune add ./web-farm --medium /media/VIVERCONF`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, given []string) error {
			b, err := bootmedium.AddRune(p.medium, given[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "%s: added to %s\n", b.Name, p.medium)
			return err
		},
	}
	p.register(cmd)
	return cmd
}

func newRuneRemove(env environment) *cobra.Command {
	var p runePlace
	cmd := &cobra.Command{
		Use:     "remove NAME",
		Short:   "Remove a rune from a medium",
		Example: `  viver rune remove web-farm --medium /media/VIVERCONF`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, given []string) error {
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
