package main

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"viver.lan/internal/livechange"
	"viver.lan/internal/livelayer"
)

func newFile(env environment) *cobra.Command {
	cmd := &cobra.Command{Use: "file", Short: "Files on all machines of a running network"}
	cmd.AddCommand(newFilePut(env), newFileRemove(env))
	return cmd
}

func newFilePut(env environment) *cobra.Command {
	var l liveTarget
	var mode string
	cmd := &cobra.Command{
		Use:   "put SOURCE /PATH",
		Short: "Put a file on all machines of a running network",
		Long: `Put a file on all machines of a running network, in the place of what they have there, and
on machines that boot later. It is signed with the owner's key.

Everybody on the network can read what is put: the nodes give it to each other
unencrypted. So put no passwords and no secret keys.`,
		Example: `  viver file put motd /etc/motd --to 10.77.0.2`,
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			bits, err := strconv.ParseUint(mode, 8, 32)
			if err != nil || bits > uint64(fs.ModePerm) {
				return usageError{fmt.Errorf("mode %q: want octal permissions such as 755", mode)}
			}
			fi, err := os.Stat(given[0])
			if err != nil {
				return err
			}
			if !fi.Mode().IsRegular() || fi.Size() > livelayer.MaxSize {
				return fmt.Errorf("%s: want a file of up to %d MiB, found %s of %d bytes", given[0], livelayer.MaxSize>>20, fi.Mode(), fi.Size())
			}
			data, err := os.ReadFile(given[0])
			if err != nil {
				return err
			}
			return l.change(cmd.Context(), env, "file put "+given[1], func(layer livelayer.Layer) (livelayer.Layer, error) {
				return livechange.PutFile(layer, given[1], fs.FileMode(bits), data)
			})
		},
	}
	l.register(cmd)
	cmd.Flags().StringVar(&mode, "mode", "644", "its `permissions` there")
	return cmd
}

func newFileRemove(env environment) *cobra.Command {
	var l liveTarget
	cmd := &cobra.Command{
		Use:   "remove /PATH",
		Short: "Take back a file that was put",
		Long: `Take back a file that was put: machines have again what was there before. One that has
booted with the file, or has it in saved data of an earlier boot, keeps it.`,
		Example: `  viver file remove /etc/motd --to 10.77.0.2`,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			return l.change(cmd.Context(), env, "file remove "+given[0], func(layer livelayer.Layer) (livelayer.Layer, error) {
				return livechange.RemoveFile(layer, given[0])
			})
		},
	}
	l.register(cmd)
	return cmd
}
