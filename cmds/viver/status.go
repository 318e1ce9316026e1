package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"viver.lan/internal/control"
	"viver.lan/internal/ether"
)

// askDeadline bounds one question to a daemon on this machine.
const askDeadline = 5 * time.Second

// output is the form of an answer, the -o flag.
type output struct{ form string }

func (o *output) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.form, "output", "o", "text", "`form` of the answer: text or json")
}

// print writes value as JSON, or as text by the given function.
func (o *output) print(w io.Writer, value any, text func(io.Writer) error) error {
	switch o.form {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(value)
	case "text":
		return text(w)
	}
	return usageError{fmt.Errorf("output form %q: want text or json", o.form)}
}

func newStatus(env environment) *cobra.Command {
	var out output
	var socket string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show this node: its root disk, its peers, and whether the first node may go",
		Example: `  viver status
  viver status -o json`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := askStatus(cmd.Context(), socket)
			if err != nil {
				return err
			}
			return out.print(env.stdout, s, func(w io.Writer) error { return writeStatus(w, s) })
		},
	}
	out.register(cmd)
	cmd.Flags().StringVar(&socket, "socket", control.Socket, "where the block daemon listens")
	return cmd
}

func newNode(env environment) *cobra.Command {
	node := &cobra.Command{Use: "node", Short: "The machines of the network"}
	var out output
	var socket string
	list := &cobra.Command{
		Use:   "list",
		Short: "List the machines this node knows",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := askStatus(cmd.Context(), socket)
			if err != nil {
				return err
			}
			return out.print(env.stdout, s.Members, func(w io.Writer) error { return writeMembers(w, s) })
		},
	}
	out.register(list)
	list.Flags().StringVar(&socket, "socket", control.Socket, "where the block daemon listens")
	node.AddCommand(list, newNodeSet(env))
	return node
}

func askStatus(ctx context.Context, socket string) (*control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askDeadline)
	defer cancel()
	s, err := control.NewClient(socket).Status(ctx)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no block daemon listens on %s: this machine did not boot with VIVER: %w", socket, err)
	}
	return s, err
}

func writeStatus(w io.Writer, s *control.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	first := ""
	if s.First {
		first = " (first node)"
	}
	fmt.Fprintf(t, "node\t%s%s, %s, %s\n", s.Hostname, first, s.Address, macText(s.MAC))
	fmt.Fprintf(t, "image\t%s (%s)\n", s.Image, s.Infohash)
	fmt.Fprintf(t, "root disk\t%s\n", s.Device)
	fmt.Fprintf(t, "pieces\t%d of %d, %d of them kept for the network; %s of %s used\n", s.Transfer.Have, s.Transfer.Pieces, s.Pinned,
		megabytes(uint64(s.Used)), megabytes(uint64(s.Budget)))
	if s.Written != nil {
		fmt.Fprintf(t, "written files\t%s\n", room(s.Written))
	}
	if s.Panics > 0 {
		fmt.Fprintf(t, "faults\t%d, each of which ended one connection or packet; the log says where: please report it\n", s.Panics)
	}
	if s.Note != "" {
		fmt.Fprintf(t, "note\t%s\n", s.Note)
	}
	fmt.Fprintf(t, "received\t%s from the first node, %s from peers, %s from the medium\n",
		megabytes(s.Transfer.FromOrigin), megabytes(s.Transfer.FromPeers), megabytes(s.Transfer.FromMedium))
	fmt.Fprintf(t, "sent\t%s\n", megabytes(s.Transfer.Sent))
	answer := "no"
	if s.Independence.Independent {
		answer = "yes"
	}
	fmt.Fprintf(t, "replicas\t%d at least, on nodes other than the first\n", s.Replicas)
	fmt.Fprintf(t, "independent\t%s: %s\n", answer, s.Independence.Reason)
	if s.Missing != "" {
		fmt.Fprintf(t, "missing\t%s\n", s.Missing)
	}
	for _, f := range s.ProofFailures {
		fmt.Fprintf(t, "not proved\t%s on %s %s, %.0f s ago: its copies do not count\n", f.Peer, f.Machine, f.Why, f.Seconds)
	}
	if s.Served != "" {
		fmt.Fprintf(t, "warning\t%s\n", s.Served)
	}
	for _, p := range s.Waiting {
		fmt.Fprintf(t, "waiting\tfor piece %d since %.0f s: %s\n", p.Piece, p.Seconds, p.Reason)
	}
	if err := t.Flush(); err != nil || len(s.Peers) == 0 {
		return err
	}
	fmt.Fprintln(t, "\npeer\tpieces\tcopies\treceived\tsent")
	for _, p := range s.Peers {
		name := p.Address
		if p.Origin {
			name += " (first node)"
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\n", name, p.Have, cmp.Or(p.Proof, "-"), megabytes(p.Downloaded), megabytes(p.Uploaded))
	}
	return t.Flush()
}

// macText is a MAC address as it is shown, "-" for none.
func macText(m ether.MAC) string {
	if m == (ether.MAC{}) {
		return "-"
	}
	return m.String()
}

func writeMembers(w io.Writer, s *control.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "hostname\tname\taddress\treservation\tmac\tstate\trole\tid")
	for _, m := range s.Members {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", cmp.Or(m.Hostname, "-"), cmp.Or(m.Name, "-"), m.Address, cmp.Or(m.Reservation, "-"),
			macText(m.MAC), stateOf(m, s.Network), roleOf(m), m.ID)
	}
	if err := t.Flush(); err != nil || len(s.Strangers) == 0 {
		return err
	}
	fmt.Fprintln(t, "\nstranger\tcalls itself\twhy")
	for _, x := range s.Strangers[:min(len(s.Strangers), maxStrangers)] {
		fmt.Fprintf(t, "%s\t%s\t%s\n", x.Address, cmp.Or(x.Name, "-"), x.Why)
	}
	if more := len(s.Strangers) - maxStrangers; more > 0 {
		fmt.Fprintf(t, "and %d more (viver status -o json)\n", more)
	}
	return t.Flush()
}

// maxStrangers is how many are listed for people.
const maxStrangers = 20

// stateOf adds to a member's state what is doubtful about it.
func stateOf(m control.Member, network string) string {
	state := m.State
	if m.Standing != "" {
		state += ", " + m.Standing
	}
	if m.Network != "" && network != "" && m.Network != network {
		state += ", network " + m.Network
	}
	return state
}

func roleOf(m control.Member) string {
	if m.First {
		return "first node"
	}
	return "node"
}

// room says how much of the place for written files is taken.
func room(w *control.Written) string {
	text := fmt.Sprintf("%s of %s used", megabytes(w.Size-w.Free), megabytes(w.Size))
	if w.Files > 0 {
		text += fmt.Sprintf(", room for %d more files", w.FilesFree)
	}
	if w.Short() {
		text += ": almost full, delete what is not needed"
	}
	return text
}

func megabytes(n uint64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
