package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"viver.lan/internal/runekit"
)

func newRuneNew(env environment) *cobra.Command {
	var kind string
	cmd := &cobra.Command{
		Use:   "new {NAME | DIR/NAME}",
		Short: "Make the folder of a new rune, which works as it is",
		Long: `Make the folder of a new rune, which works as it is and explains itself in comments.
The kinds: ` + strings.Join(runekit.Kinds(), "; ") + `.`,
		Example: `  viver rune new web-farm
  viver rune new motd --kind files`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, given []string) error {
			files, err := runekit.New(given[0], kind)
			if err != nil {
				return err
			}
			for _, f := range files {
				if _, err := fmt.Fprintln(env.stdout, f); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&kind, "kind", "role", "what the skeleton shows")
	return cmd
}
