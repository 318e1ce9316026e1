//go:build !node

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"viver.lan/internal/bootmedium"
	"viver.lan/internal/runekit"
	"viver.lan/internal/runes"
)

func newMediumBuild(env environment) *cobra.Command {
	var c bootmedium.Config
	var public string
	cmd := &cobra.Command{
		Use:   "build IMAGE -o MEDIUM.iso",
		Short: "Make a bootable ISO for CD and USB, BIOS and UEFI, from an image",
		Long: `Make a bootable ISO for CD and USB, BIOS and UEFI, from an image. The ISO has a
small FAT volume named VIVERCONF with viver/viver.toml, which any PC can edit
once the ISO is on a stick.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			var err error
			if c.Owner, err = ownerPublic(env, public); err != nil {
				return err
			}
			if c.Builtin, err = builtinRunes(); err != nil {
				return err
			}
			bar := newProgress(env.stderr)
			c.Image, c.Progress = given[0], bar.show
			marker, err := bootmedium.Build(cmd.Context(), c)
			bar.end()
			if err != nil {
				return hintPublic(err, public)
			}
			for _, note := range runeNotes(cmd.Context(), c) {
				fmt.Fprintf(env.stderr, "viver: %s\n", note)
			}
			_, err = fmt.Fprintf(env.stdout, "%s: medium %s with image %s\n", c.Output, marker.ID, marker.Image)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&c.Output, "output", "o", "", "ISO file to make")
	flags.StringVar(&public, "public", "", publicHelp)
	flags.StringVar(&c.Settings, "settings", "", "viver.toml for the settings volume (default: all settings, commented out)")
	flags.StringArrayVar(&c.Runes, "rune", nil, "bundle directory to put on the settings volume; may be repeated")
	flags.StringArrayVar(&c.Arguments, "append", nil, "kernel argument of the first node; may be repeated")
	_ = cmd.MarkFlagRequired("output") // the flag exists
	_ = cmd.MarkFlagFilename("output", "iso")
	return cmd
}

// runeNotes says of a medium's runes what is no mistake and still may surprise.
func runeNotes(ctx context.Context, c bootmedium.Config) (notes []string) {
	var given []runes.Bundle
	for _, dir := range c.Runes {
		b, err := runes.LoadDir(dir)
		if err != nil {
			continue // it has changed since the medium was made of it
		}
		given = append(given, b)
		r, err := runekit.CheckImage(ctx, c.Image, b)
		if err != nil {
			notes = append(notes, fmt.Sprintf("rune %s: not compared with the image: %v", b.Name, err))
		}
		for _, text := range r.Errors {
			notes = append(notes, fmt.Sprintf("rune %s: %s", b.Name, text))
		}
		for _, m := range r.Lacks {
			notes = append(notes, fmt.Sprintf("rune %s: %s", b.Name, m))
		}
		if r.Unmet != "" {
			notes = append(notes, fmt.Sprintf("rune %s: machines with this image skip it: %s", b.Name, r.Unmet))
		}
	}
	if err := runes.Conflicts(runes.Merge(c.Builtin, given)); err != nil {
		notes = append(notes, strings.Split(err.Error(), "\n")...)
	}
	return notes
}
