//go:build !node

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"viver.lan/internal/agent"
	"viver.lan/internal/blockdaemon"
	"viver.lan/internal/bootserver"
	"viver.lan/internal/contain"
	"viver.lan/internal/control"
	"viver.lan/internal/event"
	"viver.lan/internal/klog"
)

// The arguments that make this program a part of a server; package supervise gives them.
const (
	volumePart = "serve-volume"
	agentPart  = "serve-agent"
)

func newServe(env environment) *cobra.Command {
	var c bootserver.Config
	var public string
	var install, uninstall bool
	cmd := &cobra.Command{
		Use:   "serve IMAGE [flags]",
		Short: "Boot a network from this machine, in place of a medium",
		Long: `Boot a network from this machine, in place of a medium. It is the first node of the
network behind one interface: it adds the boot program to the answers of the DHCP server
there, or gives addresses where there is none, to machines that boot from the network
only; it serves TFTP and HTTP, and the pieces of the image. It needs root, and an IPv4
address that stays. It changes nothing of this machine's network: if there is a firewall,
let UDP 67, 69, 4011, TCP 80, and TCP and UDP 6881, 6882 and 7946 in from that interface.

It shows the network until Ctrl-C. When it says that the machines go on without it, they
do: they have the image among themselves, and boot others. viver status and viver node
work beside it.

--install makes a systemd unit of it, with the same flags, and starts that.`,
		Example: `  viver serve mylab --interface eth1
  viver serve mylab --interface eth1 --settings lab.toml --rune ./users
  viver serve mylab --interface eth1 --install
  viver serve --uninstall`,
		Args: args(func(cmd *cobra.Command, given []string) error {
			if uninstall {
				return cobra.NoArgs(cmd, given)
			}
			return cobra.ExactArgs(1)(cmd, given)
		}),
		RunE: func(cmd *cobra.Command, given []string) (err error) {
			if uninstall {
				return bootserver.Uninstall(cmd.Context(), env.stdout)
			}
			c.Image = given[0]
			if c.Owner, err = ownerPublic(env, public); err != nil {
				return err
			}
			if c.Builtin, err = builtinRunes(); err != nil {
				return err
			}
			bar := newProgress(env.stderr)
			screen := newServeScreen(env)
			c.Progress, c.Log = bar.show, partLog(screen)
			server, err := bootserver.Check(c)
			if err != nil {
				return err
			}
			defer bar.end()
			if install {
				exe, err := env.executable()
				if err != nil {
					return err
				}
				return hintPublic(server.Install(cmd.Context(), env.stdout, exe, public), public)
			}
			if err := server.Prepare(cmd.Context()); err != nil {
				return hintPublic(err, public)
			}
			bar.end()
			return errors.Join(screen.run(cmd.Context(), server), server.Close())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.Interface, "interface", "", "serve the machines behind this `interface`, by name or MAC address (default: network.interface of the settings, else the only one with an address)")
	flags.StringVar(&public, "public", "", publicHelp)
	flags.StringVar(&c.Settings, "settings", "", "viver.toml for the machines, as on a medium (default: all defaults)")
	flags.StringArrayVar(&c.Runes, "rune", nil, "bundle directory for the machines; may be repeated")
	flags.BoolVar(&install, "install", false, "write a systemd unit that does this at each start of this machine, and start it")
	flags.BoolVar(&uninstall, "uninstall", false, "stop that unit and remove it")
	cmd.MarkFlagsMutuallyExclusive("install", "uninstall")
	return cmd
}

// newServeParts are what viver serve starts.
func newServeParts(env environment) []*cobra.Command {
	part := func(name string, run func(context.Context, *slog.Logger, *contain.Counter) error) *cobra.Command {
		return &cobra.Command{Use: name, Hidden: true, Args: args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
			var panics contain.Counter
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			go func() { // it ends with the process: nothing ends a read of standard input
				_, _ = io.Copy(io.Discard, os.Stdin)
				cancel()
			}()
			return run(ctx, partLog(env.stderr), &panics)
		}}
	}
	return []*cobra.Command{
		part(volumePart, func(ctx context.Context, log *slog.Logger, _ *contain.Counter) error {
			return blockdaemon.RunServer(ctx, log)
		}),
		part(agentPart, func(ctx context.Context, log *slog.Logger, panics *contain.Counter) error {
			return agent.Run(ctx, agent.Config{Log: panics.Watch(log), Events: event.NewLog("viverd", klog.Uptime), Panics: panics.Total})
		}),
	}
}

// partLog writes lines for people and for the journal, which has the time itself.
func partLog(w io.Writer) *slog.Logger {
	return slog.New(klog.Limit(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
}

// serveScreen shows a server: on a terminal the network's status with the end of the log,
// elsewhere the log.
type serveScreen struct {
	env      environment
	terminal bool
	log      lastLines
}

func newServeScreen(env environment) *serveScreen {
	return &serveScreen{env: env, terminal: newProgress(env.stdout).isTTY}
}

// Write implements io.Writer, for the log.
func (s *serveScreen) Write(p []byte) (int, error) {
	if s.terminal {
		return s.log.Write(p)
	}
	return s.env.stderr.Write(p)
}

// run serves until ctx ends, which is no error.
func (s *serveScreen) run(ctx context.Context, server *bootserver.Server) error {
	fmt.Fprint(s.env.stdout, summary(server))
	output, written, err := os.Pipe()
	if err != nil {
		return err
	}
	defer output.Close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		_, err := io.Copy(s, output)
		return err
	})
	showing, stop := context.WithCancel(ctx)
	g.Go(func() error { return s.show(showing, server) })
	g.Go(func() error {
		defer stop()
		return errors.Join(server.Run(ctx, written, []string{volumePart}, []string{agentPart}), written.Close())
	})
	err = g.Wait()
	if s.terminal && err != nil {
		fmt.Fprint(s.env.stderr, s.log.String())
	}
	return err
}

// summary says what is served, for people.
func summary(server *bootserver.Server) string {
	text := row("serving", server.Image+" on "+server.Link) + row("dhcp", server.DHCP)
	if server.Note != "" {
		text += row("note", server.Note)
	}
	return text
}

// row is a line like those of the status, above which it stands.
func row(name, text string) string { return fmt.Sprintf("%-13s%s\n", name, text) }

// show shows the network until ctx ends.
func (s *serveScreen) show(ctx context.Context, server *bootserver.Server) error {
	v := view{output: output{"text"}, text: func(w io.Writer, status *control.Status) error {
		fmt.Fprint(w, summary(server), farewell(status), "\n")
		if err := writeStatus(w, status); err != nil {
			return err
		}
		_, err := fmt.Fprint(w, "\n", s.log.String())
		return err
	}}
	said := ""
	_ = control.NewClient(control.Socket).Watch(ctx, func(status *control.Status, lost error) error { // ends with ctx
		switch text := ""; {
		case lost != nil: // it starts, or is started again: the log says so
		case s.terminal:
			return v.again(s.env.stdout, status, true)
		default:
			if text = farewell(status); text != said {
				said = text
				fmt.Fprint(s.env.stdout, text)
			}
		}
		return nil
	})
	return nil
}

// farewell says what becomes of the network if the server ends now.
func farewell(s *control.Status) string {
	switch machines := len(s.Members) - 1; {
	case machines < 1:
		return row("Ctrl-C", "ends it; no machine runs from it")
	case s.Independence.Independent:
		return row("Ctrl-C", "ends it; the machines go on without it and boot others")
	default:
		return row("Ctrl-C", "ends it, and machines stop when they read what only it has: "+s.Independence.String())
	}
}
