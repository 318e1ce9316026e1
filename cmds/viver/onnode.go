//go:build node

package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"viver.lan/internal/bootmedium"
	"viver.lan/internal/runes"
)

// The tag "node" makes the viver of the initramfs, which each machine fetches before it
// boots. It lacks what only makes images and media: that needs the files that ship
// beside the other viver.

var errNotOnNodes = errors.New("the viver of a booted machine has no built-in runes and makes no images and media: use the one that ./build.sh build made, with its lib directory")

// finder is what the questions of the other viver are about.
type finder struct{}

func newImageBuild(env environment) *cobra.Command {
	_ = env.find // is for the other viver
	return notOnNodes("build", "Turn an installed Linux into a diskless image")
}

func newImageExplain(environment) *cobra.Command {
	return notOnNodes("explain", "Show what an image has otherwise than its source, and why")
}

func newImageProfile(environment) *cobra.Command {
	return notOnNodes("profile", "List the files that an image reads while it boots, in order")
}

func newImageDelete(environment) *cobra.Command { return notOnNodes("delete", "Delete images") }

func newImageDiff(environment) *cobra.Command {
	return notOnNodes("diff", "Show what image B has otherwise than image A, and what machines with A fetch for it")
}

func newImageList(environment) *cobra.Command {
	return notOnNodes("list", "List the images below a directory")
}

func newImageShow(environment) *cobra.Command {
	return notOnNodes("show", "Show what an image says of itself")
}

func newImageSign(environment) *cobra.Command {
	return notOnNodes("sign", "Sign an image again whose signature is missing or damaged")
}

func newMediumBuild(environment) *cobra.Command {
	return notOnNodes("build", "Make a bootable ISO for CD and USB, BIOS and UEFI, from images")
}

// mediumFlags are none: only the other viver makes a medium while it is written.
type mediumFlags struct{}

func (mediumFlags) register(*cobra.Command) {}

func (mediumFlags) write(context.Context, environment, *progress, []string, string, bootmedium.WriteOptions) (string, error) {
	return "", errNotOnNodes
}

func newKernel(environment) *cobra.Command {
	return notOnNodes("kernel", "Judge kernels")
}

func newServe(environment) *cobra.Command {
	return notOnNodes("serve", "Boot a network from this machine, in place of a medium")
}

func newServeParts(environment) []*cobra.Command { return nil }

// builtinRunes says where they are to be had: a node has what became of them, and
// their files only while it boots.
func builtinRunes() ([]runes.Bundle, error) { return nil, errNotOnNodes }

// notOnNodes is a command that says where it is to be had, whatever it is given.
func notOnNodes(name, short string) *cobra.Command {
	return &cobra.Command{
		Use:                name,
		Short:              short + " (not on booted machines)",
		DisableFlagParsing: true,
		RunE:               func(*cobra.Command, []string) error { return errNotOnNodes },
	}
}
