package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// environment is what the command gets from outside.
type environment struct {
	args           []string
	stdin          io.Reader
	stdout, stderr io.Writer
	executable     func() (string, error)
	// configDir is where the user's own files are.
	configDir func() (string, error)
	// find finds the disks that questions are about; nil for those of this machine.
	find *finder
	// become goes on as another program, which is called by args[0].
	become func(program string, args []string) error
}

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// run executes one command line and returns the exit code.
func run(ctx context.Context, env environment) int {
	root := newRoot(env)
	root.SetArgs(env.args)
	root.SetOut(env.stdout)
	root.SetErr(env.stderr)
	if err := unknownCommand(root, env.args); err != nil {
		fmt.Fprintf(env.stderr, "viver: %v\n", err)
		return exitUsage
	}
	cmd, err := root.ExecuteContextC(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil:
		if writesFiles(cmd) {
			fmt.Fprintln(env.stderr, "viver: interrupted; no incomplete file is left under its final name")
		}
		return exitInterrupted
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "unknown command"): // cobra has no type for it
		fmt.Fprintf(env.stderr, "viver: %v\n", err)
		return exitUsage
	default:
		fmt.Fprintf(env.stderr, "viver: %v\n", err)
		var exit exitError
		if errors.As(err, &exit) {
			return exit.code
		}
		return exitFailed
	}
}

// unknownCommand says of a word behind a group of commands that it is none of them: cobra
// would show the help of the group and call it a success.
func unknownCommand(root *cobra.Command, args []string) error {
	group, rest, err := root.Find(args)
	if err != nil || group.Runnable() || len(rest) == 0 || strings.HasPrefix(rest[0], "-") {
		return nil // cobra's own answer is right
	}
	group.SuggestionsMinimumDistance = 2 // letters that may be wrong, as cobra has it for the first word
	hint := ""
	if near := group.SuggestionsFor(rest[0]); len(near) > 0 {
		hint = "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return fmt.Errorf("unknown command %q for %q%s See `%s --help`", rest[0], group.CommandPath(), cmp.Or(hint, "."), group.CommandPath())
}

// exitError is an error with an exit code of its own.
type exitError struct {
	error
	code int
}

// writesFiles reports whether an interrupted command may have begun to write a file.
func writesFiles(cmd *cobra.Command) bool {
	path := cmd.CommandPath()
	return strings.HasPrefix(path, "viver image ") || strings.HasPrefix(path, "viver medium ")
}

// usageError marks a mistake in the command line itself.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func newRoot(env environment) *cobra.Command {
	root := &cobra.Command{
		Use:   "viver",
		Short: "Boot a network of PCs from one medium, without disks",
		Long: `viver builds diskless images and boot media, shows the state of nodes, and runs
commands on them.

Exit codes: 0 done, 1 failed, 2 wrong command line, 130 interrupted.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newImage(env), newMedium(env), newKernel(env), newStatus(env), newDoctor(env), newNode(env), newRole(env), newRune(env), newSSH(env), newRun(env), newFile(env), newServe(env))
	root.AddCommand(newServeParts(env)...)
	return root
}

// args turns cobra's check of positional arguments into a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := errors.Join(check(cmd, given), cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups()); err != nil {
			return usageError{fmt.Errorf("%w; see `%s --help`", err, cmd.CommandPath())}
		}
		return nil
	}
}
