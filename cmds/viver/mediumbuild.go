//go:build !node

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"viver.lan/internal/bootmedium"
	"viver.lan/internal/runekit"
	"viver.lan/internal/runes"
)

// mediumFlags say what goes onto a medium beside its images.
type mediumFlags struct {
	bootmedium.Config
	public string
}

func (f *mediumFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.public, "public", "", publicHelp)
	flags.StringVar(&f.Settings, "settings", "", "viver.toml for the settings volume (default: all settings, commented out)")
	flags.StringArrayVar(&f.Runes, "rune", nil, "bundle directory to put on the settings volume; may be repeated")
	flags.StringArrayVar(&f.Arguments, "append", nil, "kernel argument of the first node; may be repeated")
}

// config is what package bootmedium makes of them.
func (f *mediumFlags) config(env environment, bar *progress, images []string) (c bootmedium.Config, err error) {
	c = f.Config
	if c.Owner, err = ownerPublic(env, f.public); err != nil {
		return c, err
	}
	if c.Builtin, err = builtinRunes(); err != nil {
		return c, err
	}
	c.Images, c.Progress = images, bar.show
	c.Note = func(s string) { bar.end(); fmt.Fprintf(env.stderr, "viver: %s\n", s) }
	return c, nil
}

// write makes a medium of images while it is written.
func (f *mediumFlags) write(ctx context.Context, env environment, bar *progress, images []string, target string, o bootmedium.WriteOptions) (string, error) {
	c, err := f.config(env, bar, images)
	if err != nil {
		return "", err
	}
	where, marker, err := bootmedium.WriteImages(ctx, c, target, o)
	if err != nil {
		return "", hintPublic(err, f.public)
	}
	for _, note := range runeNotes(ctx, c) {
		c.Note(note)
	}
	return fmt.Sprintf("%s: medium %s", where, marker.ID), nil
}

func newMediumBuild(env environment) *cobra.Command {
	var f mediumFlags
	cmd := &cobra.Command{
		Use:   "build IMAGE... -o MEDIUM.iso",
		Short: "Make a bootable ISO for CD and USB, BIOS and UEFI, from images",
		Long: `Make a bootable ISO for CD and USB, BIOS and UEFI, from an image. The ISO has a
small FAT volume named VIVERCONF with viver/viver.toml, which any PC can edit
once the ISO is on a stick.

Of several images the machine with the medium offers a menu. Those that it boots over
the network get the image that was chosen there. boot.default and boot.timeout in the
--settings say which it takes by itself, and when; unless set, the first in 3 seconds.`,
		Example: `  viver medium build images/office -o office.iso
  viver medium build images/office images/exam -o lab.iso --settings lab.toml`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			bar := newProgress(env.stderr)
			c, err := f.config(env, bar, given)
			if err != nil {
				return err
			}
			marker, err := bootmedium.Build(cmd.Context(), c)
			bar.end()
			if err != nil {
				return hintPublic(err, f.public)
			}
			for _, note := range runeNotes(cmd.Context(), c) {
				c.Note(note)
			}
			_, err = fmt.Fprintf(env.stdout, "%s: medium %s with image %s%s\n", c.Output, marker.ID, marker.Image, more(len(given)-1))
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.Output, "output", "o", "", "ISO file to make")
	f.register(cmd)
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
		for _, image := range c.Images {
			notes = append(notes, runeNotesOf(ctx, b, image)...)
		}
	}
	if err := runes.Conflicts(runes.Merge(c.Builtin, given)); err != nil {
		notes = append(notes, strings.Split(err.Error(), "\n")...)
	}
	return notes
}

// runeNotesOf says what one rune will be with one image.
func runeNotesOf(ctx context.Context, b runes.Bundle, image string) (notes []string) {
	note := func(text string) {
		notes = append(notes, fmt.Sprintf("rune %s, image %s: %s", b.Name, filepath.Base(image), text))
	}
	r, err := runekit.CheckImage(ctx, image, b)
	if err != nil {
		note(fmt.Sprintf("not compared: %v", err))
	}
	for _, text := range r.Errors {
		note(text)
	}
	for _, lack := range r.Lacks {
		note(fmt.Sprint(lack))
	}
	if r.Unmet != "" {
		note("machines with this image skip it: " + r.Unmet)
	}
	return notes
}

// more says how many images there are beside the first.
func more(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}
