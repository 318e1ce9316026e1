package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"viver.lan/internal/bootorder"
	"viver.lan/internal/control"
	"viver.lan/internal/event"
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

// view is a part of the block daemon's status, in the form that is asked for.
type view struct {
	output
	socket string
	watch  bool
	part   func(*control.Status) any // for JSON
	text   func(io.Writer, *control.Status) error
}

func (v *view) register(cmd *cobra.Command) {
	v.output.register(cmd)
	cmd.Flags().StringVar(&v.socket, "socket", control.Socket, "where the block daemon listens")
}

func (v *view) registerWatch(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&v.watch, "watch", "w", false, "show it again whenever it changes, until interrupted; with -o json one line each")
}

// show shows it, once or as it changes.
func (v *view) show(ctx context.Context, env environment) error {
	if v.watch {
		return v.follow(ctx, env)
	}
	s, err := askStatus(ctx, v.socket)
	if err != nil {
		return err
	}
	return v.print(env.stdout, v.part(s), func(w io.Writer) error { return v.text(w, s) })
}

// follow shows each status, on a terminal in the place of the last.
func (v *view) follow(ctx context.Context, env environment) error {
	terminal, answered := newProgress(env.stdout).isTTY, false
	return control.NewClient(v.socket).Watch(ctx, func(s *control.Status, lost error) error {
		switch {
		case lost != nil && !answered && !starting(v.socket, lost):
			return noDaemon(v.socket, lost)
		case lost != nil: // it is started again
			fmt.Fprintln(env.stderr, "viver:", lost)
			return nil
		}
		answered = true
		return v.again(env.stdout, s, terminal)
	})
}

// again writes one status of many, at once: a line of JSON, or a page.
func (v *view) again(w io.Writer, s *control.Status, terminal bool) error {
	if v.form == "json" {
		return json.NewEncoder(w).Encode(v.part(s))
	}
	var page bytes.Buffer
	if terminal {
		page.WriteString(clearScreen)
	}
	if err := v.print(&page, nil, func(w io.Writer) error { return v.text(w, s) }); err != nil {
		return err
	}
	if !terminal {
		page.WriteString("\n")
	}
	_, err := page.WriteTo(w)
	return err
}

// clearScreen clears a terminal, as clear(1) does.
const clearScreen = "\x1b[H\x1b[2J"

func newStatus(env environment) *cobra.Command {
	v := view{part: func(s *control.Status) any { return s }, text: writeStatus}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show this node: its root disk, its peers, and whether the first node may go",
		Example: `  viver status
  viver status --watch
  viver status -o json`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return v.show(cmd.Context(), env) },
	}
	v.register(cmd)
	v.registerWatch(cmd)
	return cmd
}

func newNode(env environment) *cobra.Command {
	node := &cobra.Command{Use: "node", Short: "The machines of the network"}
	v := view{part: func(s *control.Status) any { return s.Members }, text: writeMembers}
	list := &cobra.Command{
		Use:   "list",
		Short: "List the machines this node knows",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return v.show(cmd.Context(), env) },
	}
	v.register(list)
	v.registerWatch(list)
	node.AddCommand(list, newNodeSet(env), newNodeLabel(env), newNodeLeaving())
	return node
}

func askStatus(ctx context.Context, socket string) (*control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askDeadline)
	defer cancel()
	s, err := control.NewClient(socket).Status(ctx)
	return s, noDaemon(socket, err)
}

// noDaemon explains an error of the question to a block daemon.
func noDaemon(socket string, err error) error {
	switch {
	case !errors.Is(err, os.ErrNotExist):
		return err
	case starting(socket, err):
		return fmt.Errorf("no block daemon listens on %s now; on a node it is started again at once: %w", socket, err)
	}
	return fmt.Errorf("no block daemon listens on %s: this machine did not boot with VIVER: %w", socket, err)
}

// starting reports whether a daemon that does not answer may do so soon: it takes its
// socket away when it ends, not the directory that uinit made.
func starting(socket string, err error) bool {
	if errors.Is(err, os.ErrPermission) || errors.Is(err, control.ErrVersion) {
		return false
	}
	_, err = os.Stat(filepath.Dir(socket))
	return err == nil
}

func writeStatus(w io.Writer, s *control.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	first := ""
	if s.First {
		first = " (first node)"
	}
	fmt.Fprintf(t, "node\t%s%s, %s, %s\n", s.Hostname, first, addressText(s.Address), cmp.Or(s.MAC.String(), "-"))
	fmt.Fprintf(t, "image\t%s (%s)\n", s.Image, s.Infohash)
	for _, line := range publishedLines(s) {
		fmt.Fprintf(t, "%s\n", line)
	}
	fmt.Fprintf(t, "root disk\t%s\n", cmp.Or(s.Device, "none"))
	fmt.Fprintf(t, "pieces\t%d of %d, %d of them kept for the network; %s of %s used\n", s.Transfer.Have, s.Transfer.Pieces, s.Pinned,
		megabytes(uint64(s.Used)), megabytes(uint64(s.Budget)))
	if s.Written != nil {
		fmt.Fprintf(t, "written files\t%s\n", room(s.Written))
	}
	for _, r := range s.Runes {
		fmt.Fprintf(t, "rune\t%s\n", runeSentence(r))
	}
	if s.Panics > 0 {
		fmt.Fprintf(t, "faults\t%d, each of which ended one connection or packet; the log says where: please report it\n", s.Panics)
	}
	for _, sentence := range s.Lacking {
		fmt.Fprintf(t, "hardware\t%s\n", sentence)
	}
	if s.StoreError != "" {
		fmt.Fprintf(t, "piece store\t%s\n", s.StoreError)
	}
	fmt.Fprintf(t, "received\t%s from the first node, %s from peers, %s from the medium\n",
		megabytes(s.Transfer.FromOrigin), megabytes(s.Transfer.FromPeers), megabytes(s.Transfer.FromMedium))
	fmt.Fprintf(t, "sent\t%s\n", megabytes(s.Transfer.Sent))
	answer := "no"
	if s.Independence.Independent {
		answer = "yes"
	}
	fmt.Fprintf(t, "replicas\t%d at least, on nodes other than the first\n", s.Independence.Replicas)
	fmt.Fprintf(t, "independent\t%s: %s\n", answer, s.Independence)
	if note := event.OutOfReach(s.OutOfReach, s.Transfer.Pieces, s.OriginAnswers); note != "" {
		fmt.Fprintf(t, "missing\t%s\n", note)
	}
	for _, f := range s.ProofFailures {
		fmt.Fprintf(t, "not proved\t%s on %s %s (piece %d), %.0f s ago: its copies do not count\n", f.Peer, f.Machine, f.Reason, f.Piece, f.Seconds)
	}
	if note := bootorder.Note(s); note != "" {
		fmt.Fprintf(t, "warning\t%s\n", note)
	}
	for _, p := range s.Waiting {
		fmt.Fprintf(t, "waiting\tfor piece %d for %.0f s: %s\n", p.Piece, p.Seconds, p)
	}
	if err := t.Flush(); err != nil || len(s.Peers) == 0 {
		return err
	}
	fmt.Fprintln(t, "\npeer\tpieces\tcopies\treceived\tsent")
	for _, p := range s.Peers {
		name := p.Address.String()
		if p.Origin {
			name += " (first node)"
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\n", name, p.Have, cmp.Or(p.Proof, "-"), megabytes(p.Downloaded), megabytes(p.Uploaded))
	}
	return t.Flush()
}

// addressText is an address as it is shown, "-" for none.
func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return "-"
	}
	return a.String()
}

func writeMembers(w io.Writer, s *control.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "hostname\tname\taddress\treservation\tmac\tstate\tkind\tlabels\troles\tid")
	for _, m := range s.Members {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", cmp.Or(m.Hostname, "-"), cmp.Or(m.Name, "-"), addressText(m.Address), addressText(m.Reservation),
			cmp.Or(m.MAC.String(), "-"), stateOf(m, s.Network), kindOf(m), cmp.Or(strings.Join(m.Labels, ","), "-"), rolesText(m), m.ID)
	}
	rows := strangers(s)
	if err := t.Flush(); err != nil || len(rows) == 0 {
		return err
	}
	fmt.Fprintln(t, "\nstranger\tcalls itself\twhy")
	for _, row := range rows[:min(len(rows), maxStrangers)] {
		fmt.Fprintln(t, row)
	}
	if more := len(rows) - maxStrangers; more > 0 {
		fmt.Fprintf(t, "and %d more (viver status -o json)\n", more)
	}
	return t.Flush()
}

// maxStrangers is how many are listed for people.
const maxStrangers = 20

// strangers are rows about those who take part and have not proved who they are.
func strangers(s *control.Status) (rows []string) {
	for _, x := range s.Strangers {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s", addressText(x.Address), cmp.Or(x.Name, "-"), x.Reason))
	}
	for _, p := range s.Peers {
		if !p.Ours {
			rows = append(rows, fmt.Sprintf("%s\t%s\ta connection for pieces that proved no key", p.Address, cmp.Or(p.Client, "-")))
		}
	}
	return rows
}

// stateOf adds to a member's state what is doubtful about it.
func stateOf(m control.Member, network string) string {
	state := string(m.State)
	if m.NameState != control.Owned {
		state += ", " + string(m.NameState)
	}
	if m.Network != "" && network != "" && m.Network != network {
		state += ", network " + m.Network
	}
	return state
}

// rolesText lists the roles that a member holds; those of the dead are held by others.
func rolesText(m control.Member) string {
	var names []string
	for _, r := range m.Roles {
		if m.State == control.Alive {
			names = append(names, r.String())
		}
	}
	return cmp.Or(strings.Join(names, ","), "-")
}

func kindOf(m control.Member) string {
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
