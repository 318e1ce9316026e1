package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"viver.lan/internal/roles"
	"viver.lan/internal/shell"
)

// exitIncomplete is the exit code of viver run when the command ended with 0 wherever it
// ran, and did not run on some machine.
const exitIncomplete = 3

// runner is one command line of viver run.
type runner struct {
	reach
	output
	choice  shell.Choice
	role    string // whose holders are meant
	command shell.Command
	group   bool
}

func newRun(env environment) *cobra.Command {
	var r runner
	cmd := &cobra.Command{
		Use:   "run [flags] {--all COMMAND... | --role RUNE/ROLE COMMAND... | NODE... -- COMMAND...}",
		Short: "Run a command on many machines at once, through ssh",
		Long: `Run a command on many machines at once, through ssh. The words of COMMAND are joined
by spaces, and the user's shell on each machine reads them, as with ssh. It has no input
and no terminal. Interrupted, viver ends it on all machines.

Each line of output has its machine's name in front. A summary says where the command
failed, and where it did not run because the machine is dead or cannot be reached.

Exit codes: 0 it ended with 0 on all machines; 1 it failed on some, or its end is not
known; 2 wrong command line; 3 it ended with 0 wherever it ran, and did not run on some;
130 interrupted.`,
		Example: `  viver run --all uptime
  viver run --all --group 'journalctl --boot --priority=err | tail'
  viver run --role compile/worker systemctl status viver-compile-daemon
  viver run --timeout 1m lab-07 lab-08 -- apt-get --version
  viver run --via 10.77.0.1 --all -o json uname -r`,
		Args: args(func(_ *cobra.Command, given []string) error {
			_, _, err := r.splitCommand(given)
			return err
		}),
		RunE: func(cmd *cobra.Command, given []string) (err error) {
			if r.choice.Names, r.command.Text, err = r.splitCommand(given); err != nil {
				return err
			}
			return r.run(cmd.Context(), env)
		},
	}
	r.reach.register(cmd)
	r.output.register(cmd)
	flags := cmd.Flags()
	flags.BoolVar(&r.choice.All, "all", false, "on all machines of the network")
	flags.StringVar(&r.role, "role", "", "on the machines that hold this `role`, such as compile/worker")
	cmd.MarkFlagsMutuallyExclusive("all", "role")
	flags.IntVar(&r.command.Jobs, "jobs", 32, "on how many machines `at once`")
	flags.DurationVar(&r.command.Timeout, "timeout", 0, "end it on a machine where it takes longer, such as 30s (default: none)")
	flags.BoolVar(&r.group, "group", false, "show the output of each machine in one piece, when the command has ended there")
	return cmd
}

// splitCommand tells the names of machines from the command that follows.
func (r *runner) splitCommand(given []string) (names []string, command string, err error) {
	switch {
	case r.choice.All:
	case r.role != "":
		if _, err := roles.ParseName(r.role); err != nil {
			return nil, "", err
		}
		names = []string{r.role}
	default:
		i := slices.Index(given, "--")
		if i < 1 {
			return nil, "", errors.New("on which machines? want --all COMMAND, --role RUNE/ROLE COMMAND, or NODE... -- COMMAND")
		}
		names, given = given[:i], given[i+1:]
	}
	if command = strings.Join(given, " "); strings.TrimSpace(command) == "" {
		return nil, "", errors.New("no command is given")
	}
	return names, command, nil
}

func (r *runner) run(ctx context.Context, env environment) error {
	show, err := newPrinter(env, r.form, r.group)
	switch {
	case err != nil:
		return err
	case r.command.Jobs < 1:
		return usageError{fmt.Errorf("--jobs %d: want 1 at least", r.command.Jobs)}
	case r.command.Timeout < 0:
		return usageError{fmt.Errorf("--timeout %s: want a time such as 30s", r.command.Timeout)}
	}
	following, stop := context.WithCancel(ctx)
	defer stop()
	now, later, err := r.connect(following, env)
	if err != nil {
		return err
	}
	members, absent, err := shell.Choose(now.Members, r.choice)
	if err != nil {
		return err
	}
	r.command.SSH = r.ssh
	for _, a := range absent {
		show.Ended(shell.Result{Member: a.Member, Outcome: shell.NotRun, Reason: a.Reason})
	}
	results := r.command.Run(ctx, members, later, show)
	stop()
	for range later {
	}
	for _, a := range absent {
		results = append(results, shell.Result{Member: a.Member, Outcome: shell.NotRun, Reason: a.Reason})
	}
	if err := show.failed(); err != nil {
		return fmt.Errorf("write the output: %w", err)
	}
	err = r.summary(results)
	if ctx.Err() != nil && err != nil {
		fmt.Fprintf(env.stderr, "viver: interrupted: %v\n", err)
	}
	return err
}

// summary is nil when the command ended with 0 on all machines. Else it says on which it
// did not.
func (r *runner) summary(results []shell.Result) error {
	var text strings.Builder
	good, code, denied := 0, exitIncomplete, false
	for _, result := range results {
		if result.OK() {
			good++
			continue
		}
		if result.Outcome != shell.NotRun {
			code = exitFailed
		}
		denied = denied || strings.Contains(result.Reason, "Permission denied")
		fmt.Fprintf(&text, "\n  %s: %s", shell.Label(result.Member), sentence(result))
	}
	if good == len(results) {
		return nil
	}
	if denied {
		text.WriteString("\n" + r.denied())
	}
	return exitError{fmt.Errorf("%d of %d machines ended it with 0; not these:%s", good, len(results), text.String()), code}
}

// denied says what to do where nobody may log in.
func (r *runner) denied() string {
	if r.via == "" && !hasKey() {
		return keylessNode
	}
	return "ssh.authorized-keys of the settings names the keys that may log in as root; ssh-add -l shows those that you have"
}

// sentence says for people what became of a command.
func sentence(r shell.Result) string {
	if r.Outcome == shell.Ended {
		return fmt.Sprintf("exit status %d", r.Code)
	}
	return strings.ReplaceAll(string(r.Outcome), "_", " ") + ": " + r.Reason
}
