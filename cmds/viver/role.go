package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"viver.lan/internal/control"
	"viver.lan/internal/ether"
	"viver.lan/internal/identity"
	"viver.lan/internal/operator"
	"viver.lan/internal/roles"
	"viver.lan/internal/shell"
)

func newRole(env environment) *cobra.Command {
	role := &cobra.Command{Use: "role", Short: "The roles of the runes, and the machines that hold them"}
	role.AddCommand(newRoleList(env), newRolePin(env), newRoleUnpin(env))
	return role
}

func newRoleList(env environment) *cobra.Command {
	v := view{}
	file := ""
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the roles, what they want, and who holds them",
		Long: `List the roles that the runes of this network have, how many machines each of them
wants, and those that hold it. What the runes want is known on the machines of the network;
elsewhere, with --socket, only the roles that are held or pinned are shown.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v.part = func(s *control.Status) any { return rolesOf(s, readOffers(file)) }
			v.text = func(w io.Writer, s *control.Status) error { return writeRoles(w, rolesOf(s, readOffers(file))) }
			return v.show(cmd.Context(), env)
		},
	}
	v.register(cmd)
	v.registerWatch(cmd)
	cmd.Flags().StringVar(&file, "runes", control.RunesStateFile, "`file` with what the runes want")
	return cmd
}

// readOffers returns what the runner left of the runes' roles: none where none runs.
func readOffers(file string) []roles.Offer {
	var left struct {
		Roles []roles.Offer `json:"roles"`
	}
	data, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(data, &left) != nil {
		return nil
	}
	return left.Roles
}

// role is a row of viver role list.
type role struct {
	Role    roles.Name   `json:"role"`
	Wants   string       `json:"wants,omitempty"` // "" where the runes are not known
	Needs   []roles.Need `json:"needs,omitempty"`
	Bound   string       `json:"bound,omitempty"`
	Pinned  []ether.MAC  `json:"pinned,omitempty"`
	Holders []holder     `json:"holders"`
	Note    string       `json:"note,omitempty"` // for people
}

// holder is a machine that says it holds a role.
type holder struct {
	ID       identity.ID `json:"id"`
	Hostname string      `json:"hostname"`
	MAC      ether.MAC   `json:"mac"`
}

// rolesOf returns the roles that are offered, held or pinned.
func rolesOf(s *control.Status, offers []roles.Offer) []role {
	pins, _ := s.Pins() // the runner logs what is wrong
	nodes := s.RoleNodes()
	assignment := roles.Assign(offers, nodes, pins)
	rows := map[roles.Name]role{}
	for _, o := range offers {
		rows[o.Name] = role{Role: o.Name, Wants: o.Count.String(), Needs: o.Needs, Bound: o.Bound}
	}
	for name, pin := range pins {
		row := rows[name]
		row.Role, row.Pinned = name, pin.On
		rows[name] = row
	}
	for _, m := range s.Members {
		for _, name := range m.Roles {
			if m.State == control.Alive {
				row := rows[name]
				row.Role, row.Holders = name, append(row.Holders, holder{m.ID, shell.Label(m), m.MAC})
				rows[name] = row
			}
		}
	}
	list := []role{}
	for name, row := range rows {
		row.Holders = append([]holder{}, row.Holders...) // none is a list, too
		slices.SortFunc(row.Holders, func(a, b holder) int { return cmp.Or(cmp.Compare(a.Hostname, b.Hostname), a.ID.Compare(b.ID)) })
		if row.Wants != "" {
			row.Note = row.note(assignment[name], nodes)
		}
		list = append(list, row)
	}
	slices.SortFunc(list, func(a, b role) int { return a.Role.Compare(b.Role) })
	return list
}

// note says what is unusual about a role that shall be held by these nodes.
func (r role) note(assigned []identity.ID, nodes []roles.Node) string {
	owners := 0
	for _, n := range nodes {
		if slices.Contains(n.Features, r.Bound) {
			owners++
		}
	}
	differs := len(assigned) != len(r.Holders) || slices.ContainsFunc(r.Holders, func(h holder) bool { return !slices.Contains(assigned, h.ID) })
	switch {
	case len(assigned) == 0 && len(r.Pinned) > 0:
		return "none of the machines that it is pinned to is on and may hold it"
	case len(assigned) == 0 && r.Bound != "" && owners == 0:
		return "no machine has " + r.Bound
	case len(assigned) == 0 && r.Wants != "others":
		return "no machine has what it needs"
	case differs:
		return "is changing"
	case r.Bound != "" && owners > len(assigned) && len(r.Pinned) == 0:
		return fmt.Sprintf("%d machines have %s: pin it to the right one", owners, r.Bound)
	}
	return ""
}

func writeRoles(w io.Writer, list []role) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no rune has roles here")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "role\twants\theld by\tnote")
	for _, r := range list {
		var held, notes []string
		for _, h := range r.Holders {
			held = append(held, h.Hostname)
		}
		if len(r.Pinned) > 0 {
			notes = append(notes, "pinned to "+strings.ReplaceAll(operator.JoinMACs(r.Pinned), ",", " "))
		}
		if r.Bound != "" {
			notes = append(notes, "bound to "+r.Bound)
		}
		for _, n := range r.Needs {
			notes = append(notes, n.String())
		}
		if r.Note != "" {
			notes = append(notes, r.Note)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.Role, cmp.Or(r.Wants, "-"), cmp.Or(strings.Join(held, " "), "-"), cmp.Or(strings.Join(notes, "; "), "-"))
	}
	return t.Flush()
}

func newRolePin(env environment) *cobra.Command {
	var o owner
	cmd := &cobra.Command{
		Use:   "pin RUNE/ROLE MAC...",
		Short: "Have a role held by these machines, and no others",
		Long: `Have a role held by these machines, those of them that are on, and by no others:
whatever the rune wants or needs. A role that is bound to a feature is still held only by
machines that have it. The pin is signed with the owner's key, as viver node set does it.`,
		Example: `  viver role pin nfs/server 52:54:00:12:34:56 --socket ./node.sock`,
		Args:    args(cobra.MinimumNArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			name, err := roles.ParseName(given[0])
			if err != nil {
				return usageError{err}
			}
			var macs []ether.MAC
			for _, text := range given[1:] {
				mac, err := parseMAC(text)
				if err != nil {
					return err
				}
				macs = append(macs, mac)
			}
			if len(macs) > maxPinned {
				return usageError{fmt.Errorf("%d machines: a role can be pinned to %d", len(macs), maxPinned)}
			}
			return o.put(cmd.Context(), env, operator.Override{Key: operator.PinOf(name.String()), Value: operator.JoinMACs(macs)})
		},
	}
	o.register(cmd)
	return cmd
}

// maxPinned is how many addresses fit into an override.
const maxPinned = 14

func newRoleUnpin(env environment) *cobra.Command {
	var o owner
	cmd := &cobra.Command{
		Use:   "unpin RUNE/ROLE",
		Short: "Take a pin back: the rune says again who holds the role",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			name, err := roles.ParseName(given[0])
			if err != nil {
				return usageError{err}
			}
			return o.put(cmd.Context(), env, operator.Override{Key: operator.PinOf(name.String())})
		},
	}
	o.register(cmd)
	return cmd
}

func newNodeLabel(env environment) *cobra.Command {
	var o owner
	cmd := &cobra.Command{
		Use:   "label MAC LABEL,LABEL...",
		Short: "Give a machine labels, by which runes find the nodes for their roles",
		Long: `Give a machine labels, by which runes find the nodes for their roles, instead of those
that it has. "" takes all of them. The labels are signed with the owner's key, as viver node
set does it.`,
		Example: `  viver node label 52:54:00:12:34:56 storage,rack-2 --socket ./node.sock`,
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			mac, err := parseMAC(given[0])
			if err != nil {
				return err
			}
			var labels []string
			if given[1] != "" {
				if labels, err = operator.ParseLabels(given[1]); err != nil {
					return usageError{err}
				}
			}
			return o.put(cmd.Context(), env, operator.Override{Key: operator.LabelsOf(mac), Value: strings.Join(labels, ",")})
		},
	}
	o.register(cmd)
	return cmd
}
