package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"viver.lan/internal/ask"
	"viver.lan/internal/bootmedium"
	"viver.lan/internal/bytesize"
)

func newMedium(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "medium",
		Short: "Build boot media and write them to sticks",
	}
	cmd.AddCommand(newMediumBuild(env), newMediumWrite(env))
	return cmd
}

func newMediumWrite(env environment) *cobra.Command {
	var o bootmedium.WriteOptions
	var build mediumFlags
	cmd := &cobra.Command{
		Use:   "write {MEDIUM.iso | IMAGE...} {DEVICE | FILE}",
		Short: "Write a medium to a USB stick and read it back",
		Long: `Write a medium to a USB stick and read it back. Instead of a medium, images may be
named: then it is made while it is written, with the flags of viver medium build, and
needs no room elsewhere.

What is on the stick is lost. Unless that is nothing, or a medium of ours, it is shown and
you are asked, where there is a terminal; --yes says so beforehand. A device in use is
refused: mounted, swapped to, or part of something else. A device that is no removable
stick, such as a USB disk, is written to with --yes only.

--data makes a file system named VIVERDATA behind the medium, on the same stick: what is
written to the machine that boots from it is still there after a restart. It takes so much
at the end of the stick, or all the rest. A stick that has one keeps it, with or
without --data, when another medium is written to it, unless --erase-data says otherwise.`,
		Example: `  viver medium write lab.iso /dev/sdX
  viver medium write images/office images/exam /dev/sdX --settings lab.toml
  viver medium write lab.iso /dev/sdX --data 8G
  viver medium write lab.iso /dev/sdX --data rest`,
		Args: args(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			what, target := given[:len(given)-1], given[len(given)-1]
			bar := newProgress(env.stderr)
			o.Progress = bar.show
			o.Note = func(s string) { bar.end(); fmt.Fprintf(env.stderr, "%s: %s\n", target, s) }
			if canAsk(env) {
				o.Confirm = func(question string) (bool, error) {
					return ask.New(env.stdin, env.stderr).Agree(cmd.Context(), question+"\nGo on?", false)
				}
			}
			var err error
			var where string
			if isDir(what[0]) {
				where, err = build.write(cmd.Context(), env, bar, what, target, o)
			} else if len(what) > 1 {
				return usageError{fmt.Errorf("one medium is written to one stick, and %s is no image directory", what[0])}
			} else {
				where, err = bootmedium.Write(cmd.Context(), what[0], target, o)
			}
			bar.end()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "%s: written and verified; it can be removed\n", where)
			return err
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.Force, "yes", false, "do not ask, and write to a device that is no removable stick")
	flags.Func("data", "`size` of a file system for saved data, such as 8G, or rest for all that is left", func(text string) error {
		if text == "rest" {
			o.Data = bootmedium.RestOfStick
			return nil
		}
		var size bytesize.Size
		err := size.Set(text)
		o.Data = int64(size)
		return err
	})
	flags.BoolVar(&o.EraseData, "erase-data", false, "do not keep the saved data that is on the stick")
	build.register(cmd)
	return cmd
}

func isDir(name string) bool {
	fi, err := os.Stat(name)
	return err == nil && fi.IsDir()
}
