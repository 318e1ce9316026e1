package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"viver.lan/internal/control"
	"viver.lan/internal/durable"
	"viver.lan/internal/shell"
)

// reach is how other machines are found, and ssh told their host keys.
type reach struct {
	socket, via string
	ssh         shell.SSH
}

func (r *reach) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows is the command's
	flags.StringVar(&r.via, "via", "", "on a computer that is no node: a `node`, as ssh takes it, that names the others and their host keys")
	flags.StringVar(&r.socket, "socket", control.Socket, "where the block daemon listens")
	flags.StringVarP(&r.ssh.User, "user", "l", "root", "who logs in there")
	cmd.MarkFlagsMutuallyExclusive("via", "socket")
}

// connect returns the status of the network, and readies r.ssh for its machines. Until ctx
// ends, later tells how the network is since.
func (r *reach) connect(ctx context.Context, env environment) (now *control.Status, later <-chan *control.Status, err error) {
	if r.ssh.Program, err = shell.Find(); err != nil {
		return nil, nil, err
	}
	statuses, failed := make(chan *control.Status), make(chan error, 1)
	go func() {
		defer close(statuses)
		failed <- r.watch(ctx, env, func(s *control.Status) error {
			select {
			case statuses <- s:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	now, ok := <-statuses
	if !ok {
		return nil, nil, <-failed
	}
	r.ssh.KnownHosts, err = r.knownHosts(env, now)
	return now, statuses, err
}

// watch calls take with each status of the node that is asked.
func (r *reach) watch(ctx context.Context, env environment, take func(*control.Status) error) error {
	if r.via != "" {
		return shell.Via{Program: r.ssh.Program, Node: r.via, Stderr: env.stderr}.Watch(ctx, take)
	}
	answered := false
	return control.NewClient(r.socket).Watch(ctx, func(s *control.Status, lost error) error {
		switch {
		case lost == nil:
			answered = true
			return take(s)
		case answered: // it is started again
			return nil
		case errors.Is(lost, os.ErrNotExist) && !starting(r.socket, lost):
			return fmt.Errorf("%w; --via NODE asks a node through ssh", noDaemon(r.socket, lost))
		}
		return noDaemon(r.socket, lost)
	})
}

// knownHosts is the file with the network's host keys: on a node the block daemon's, else
// one with the user's own files, written now.
func (r *reach) knownHosts(env environment, now *control.Status) (string, error) {
	if r.via == "" && r.socket == control.Socket {
		return control.KnownHosts, nil
	}
	dir, err := env.configDir()
	if err != nil {
		return "", fmt.Errorf("write the host keys of the network: %w", err)
	}
	// One per network: commands for two may run at the same time.
	file := filepath.Join(dir, "ssh_known_hosts-"+url.PathEscape(now.Network))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("write the host keys of the network: %w", err)
	}
	return file, durable.WriteFile(file, shell.KnownHosts(now.Members), 0o644)
}
