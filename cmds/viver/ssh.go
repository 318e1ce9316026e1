package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"viver.lan/internal/control"
	"viver.lan/internal/shell"
)

func newSSH(env environment) *cobra.Command {
	var r reach
	cmd := &cobra.Command{
		Use:   "ssh [flags] [USER@]NODE [COMMAND...]",
		Short: "Log in to a machine of the network with ssh, or run a command there",
		Long: `Log in to a machine of the network with ssh, or run a command there. NODE is a
hostname, an address, a MAC address, a name or an ID of viver node list, the beginning of
one if only one machine has it, or a role that one machine holds, such as nfs/server. What follows NODE is ssh's: its options, such as -A or
-L, and the command.

ssh accepts the machine only by the host key that it published. It ends as ssh does, with
the exit code of the command.`,
		Example: `  viver ssh lab-07
  viver ssh lab-07 uptime
  viver ssh nfs/server
  viver ssh --via 10.77.0.1 52:54:00:12:34:56 -A`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			name := given[0]
			if user, rest, found := strings.Cut(name, "@"); found {
				r.ssh.User, name = user, rest
			}
			m, err := r.one(cmd.Context(), env, name)
			if err != nil {
				return err
			}
			if r.via == "" && !hasKey() {
				fmt.Fprintf(env.stderr, "viver: %s\n", keylessNode)
			}
			return env.become(r.ssh.Program, append(append([]string{"ssh"}, r.ssh.Args(m)...), given[1:]...))
		},
	}
	r.register(cmd)
	return cmd
}

// one returns the machine of this name. Nothing goes on when it returns.
func (r *reach) one(ctx context.Context, env environment, name string) (m control.Member, err error) {
	ctx, cancel := context.WithCancel(ctx)
	now, later, err := r.connect(ctx, env)
	cancel()
	if err != nil {
		return m, err
	}
	for range later {
	}
	run, absent, err := shell.Choose(now.Members, shell.Choice{Names: []string{name}})
	switch {
	case err != nil:
		return m, err
	case len(run)+len(absent) > 1:
		return m, fmt.Errorf("%s is a role that %d machines hold: name one of them", name, len(run)+len(absent))
	case len(absent) > 0:
		return m, fmt.Errorf("%s cannot be reached: %s", shell.Label(absent[0].Member), absent[0].Reason)
	}
	return run[0], nil
}

// keylessNode says what to do on a machine from which nobody can log in elsewhere.
const keylessNode = "this machine has no SSH key and no agent that has one: log in to it with ssh -A, or use viver --via on a computer that has your key"

// hasKey reports whether this user has a key for ssh: of an agent, or in the usual place.
func hasKey() bool {
	home, err := os.UserHomeDir()
	if err != nil || os.Getenv("SSH_AUTH_SOCK") != "" {
		return true // who knows
	}
	keys, err := filepath.Glob(filepath.Join(home, ".ssh", "id_*"))
	return err != nil || len(keys) > 0
}
