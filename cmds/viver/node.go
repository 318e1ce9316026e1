package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"viver.lan/internal/control"
	"viver.lan/internal/ether"
	"viver.lan/internal/hostname"
	"viver.lan/internal/operator"
	"viver.lan/internal/sign"
)

func newNodeSet(env environment) *cobra.Command {
	var name, address string
	var o owner
	cmd := &cobra.Command{
		Use:   "set MAC",
		Short: "Set the name or the address of a machine on all nodes",
		Long: `Set the name or the address of a machine on all nodes. Such an override
is signed with the owner's key. Nodes pass it on and remember it while any of them is
on; a node with a saved-data disk remembers it longer. A machine takes
its name at its next boot, its address when it next asks for one: at its next boot,
or when half of its lease is over.

The key stays on the operator's computer: reach a node from there through ssh.`,
		Example: `  ssh -fNL ./node.sock:/run/viver/vfield.sock root@10.77.0.2
  viver node set 52:54:00:12:34:56 --name lab-07 --ip 10.0.0.7 --socket ./node.sock`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			mac, err := parseMAC(given[0])
			if err != nil {
				return err
			}
			overrides, err := overridesFor(mac, cmd.Flags().Changed, name, address)
			if err != nil {
				return usageError{err}
			}
			return o.put(cmd.Context(), env, overrides...)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&name, "name", "", "its hostname; \"\" removes the override")
	flags.StringVar(&address, "ip", "", "the IPv4 `address` that boot hosts reserve for it; \"\" removes the reservation")
	o.register(cmd)
	cmd.MarkFlagsOneRequired("name", "ip")
	return cmd
}

func newNodeLeaving() *cobra.Command {
	socket := ""
	cmd := &cobra.Command{
		Use:   "leaving",
		Short: "Tell the other nodes that this machine is about to be switched off",
		Long: `Tell the other nodes that this machine is about to be switched off or restarted.
When it does not answer any more, it has left and not died: its names are free at once, and
the rune watch reports it so. That rune runs this command at shutdown. It holds until the
next boot: do not run it on a machine that stays on.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), askDeadline)
			defer cancel()
			return control.NewClient(socket).AnnounceOff(ctx)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", control.Socket, "where the block daemon listens")
	return cmd
}

// owner is who signs overrides, and the node that takes them.
type owner struct{ key, socket string }

func (o *owner) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&o.key, "key", "", "the owner's secret key `file` (default: "+sign.KeyFile+" in ~/.config/viver)")
	flags.StringVar(&o.socket, "socket", control.Socket, "where the block daemon listens")
}

// put signs overrides and hands them over.
func (o *owner) put(ctx context.Context, env environment, overrides ...operator.Override) error {
	path, err := keyPath(env, o.key)
	if err != nil {
		return err
	}
	key, err := sign.ReadPrivateKey(path)
	if err != nil {
		return err
	}
	for _, e := range overrides {
		if err := put(ctx, o.socket, key, e); err != nil {
			return err
		}
	}
	return nil
}

// parseMAC reads the MAC address of a machine.
func parseMAC(text string) (ether.MAC, error) {
	mac, err := ether.ParseMAC(text)
	if err != nil || mac == (ether.MAC{}) {
		return mac, usageError{fmt.Errorf("%q is no MAC address; viver node list shows those of all machines", text)}
	}
	return mac, nil
}

// overridesFor makes the overrides of a machine, not signed yet. A flag that was given
// empty takes the override back.
func overridesFor(mac ether.MAC, given func(flag string) bool, name, address string) (list []operator.Override, err error) {
	if given("name") {
		if name != "" {
			err = hostname.Check(name)
		}
		list = append(list, operator.Override{Key: operator.NameOf(mac), Value: name})
	}
	if err == nil && given("ip") {
		if address != "" {
			_, err = operator.ParseAddress(address)
		}
		list = append(list, operator.Override{Key: operator.AddressOf(mac), Value: address})
	}
	return list, err
}

// nameWait is how long a node may take to know its network's name, which usually takes
// some seconds.
const nameWait = 90 * time.Second

// errNoName is why nothing can be signed yet.
var errNoName = errors.New("the node does not know its network's name yet, which is part of what is signed: is it connected to the others?")

// onNetwork waits until the node knows its network's name, which is drawn at random if
// nothing was signed yet. Its daemon may be starting, or again.
func onNetwork(ctx context.Context, node *control.Client, socket string) (s *control.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, nameWait)
	defer cancel()
	errNamed, why, asked := errors.New("it has a name"), errNoName, false
	err = node.Watch(ctx, func(now *control.Status, lost error) error {
		switch {
		case lost != nil && starting(socket, lost):
			why, asked = lost, false
			return nil
		case lost != nil:
			return noDaemon(socket, lost)
		case now.Network == "":
			why = errNoName
			if !asked {
				asked = node.BeginNetwork(ctx) == nil // else with the next status
			}
			return nil
		}
		s = now
		return errNamed
	})
	switch {
	case errors.Is(err, errNamed):
		return s, nil
	case errors.Is(err, context.DeadlineExceeded):
		return nil, why
	}
	return nil, err
}

// put makes an override newer than what the node knows, signs it and hands it over.
func put(ctx context.Context, socket string, owner sign.PrivateKey, e operator.Override) error {
	node := control.NewClient(socket)
	status, err := onNetwork(ctx, node, socket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askDeadline)
	defer cancel()
	e.Sequence = nextSequence(status, owner.Public())
	return node.PutOverride(ctx, signed(e, status, owner))
}

// verify says whether the owner signed an override for the network of a node. The node
// could show others, to have the owner sign what follows from them.
func verify(o operator.Override, s *control.Status, owner sign.PublicKey) error {
	if o.Network != s.Network {
		return fmt.Errorf("override %s: for the network %q, this is %q", o.Key, o.Network, s.Network)
	}
	return errors.Join(o.Check(), owner.Verify(sign.Override, o.SignedBytes(), o.Signature))
}

// nextSequence is greater than that of each of the owner's overrides that the node knows.
// The clock of one of two computers may be slow, so it does not say what is newer.
func nextSequence(s *control.Status, owner sign.PublicKey) uint64 {
	next := uint64(1)
	for _, o := range s.Overrides {
		if verify(o, s, owner) == nil {
			next = max(next, o.Sequence+1)
		}
	}
	return next
}

// signed returns the override for the network of a node, signed.
func signed(o operator.Override, s *control.Status, owner sign.PrivateKey) operator.Override {
	o.Network, o.Time = s.Network, uint64(time.Now().UnixNano())
	o.Signature = owner.Sign(sign.Override, o.SignedBytes())
	return o
}
