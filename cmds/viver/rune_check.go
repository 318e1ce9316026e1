package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"viver.lan/internal/runekit"
	"viver.lan/internal/runes"
)

// errUnfit is the error when a rune was read, and would not work.
var errUnfit = errors.New("it would not work")

func newRuneCheck(env environment) *cobra.Command {
	var o output
	var image string
	cmd := &cobra.Command{
		Use:   "check {NAME | DIR}",
		Short: "Check a rune, and with --image what an image lacks for it",
		Long: `Check a rune: its rune.toml, its templates with the facts of an example, and whether a
medium's settings volume keeps it as it is. With --image also whether the image has the
programs and kernel modules that it requires, and which package brings those it lacks.

Exit codes: 0 it is sound, 1 it is not.`,
		Example: `  viver rune check ./web-farm
  viver rune check ./web-farm --image images/out/debian
  viver rune check firewalld --image images/out/debian`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			b, err := findRune(given[0])
			if err != nil {
				return err
			}
			r, err := checkRune(cmd.Context(), b, image)
			if err != nil {
				return err
			}
			if builtin, err := builtinRunes(); err == nil && isFolder(given[0]) {
				if err := runes.Conflicts(runes.Merge(builtin, []runes.Bundle{b})); err != nil {
					fmt.Fprintln(env.stderr, "viver:", err)
				}
			}
			if err := o.print(env.stdout, r, func(w io.Writer) error { return writeReport(w, b.Name, image, r) }); err != nil {
				return err
			}
			if len(r.Errors)+len(r.Lacks) > 0 {
				return fmt.Errorf("rune %s: %w", b.Name, errUnfit)
			}
			return nil
		},
	}
	o.register(cmd)
	cmd.Flags().StringVar(&image, "image", "", "`directory` of the image that is to run it")
	_ = cmd.MarkFlagDirname("image") // the flag exists
	return cmd
}

// checkRune looks at a rune, by itself or with an image.
func checkRune(ctx context.Context, b runes.Bundle, image string) (r runes.Report, err error) {
	if err := b.OnFAT(); err != nil {
		return r, err
	}
	if image == "" {
		return runekit.CheckAlone(b)
	}
	return runekit.CheckImage(ctx, image, b)
}

func writeReport(w io.Writer, name, image string, r runes.Report) error {
	for _, text := range r.Errors {
		fmt.Fprintf(w, "%s: %s\n", name, text)
	}
	for _, m := range r.Lacks {
		fmt.Fprintf(w, "%s: %s\n", name, m)
	}
	var err error
	switch {
	case len(r.Errors)+len(r.Lacks) > 0:
		return nil
	case r.Unmet != "":
		_, err = fmt.Fprintf(w, "%s: sound, but machines with this image skip it: %s\n", name, r.Unmet)
	case image == "":
		_, err = fmt.Fprintf(w, "%s: sound; --image says whether an image has what it needs\n", name)
	default:
		_, err = fmt.Fprintf(w, "%s: sound, and the image has what it needs\n", name)
	}
	return err
}
