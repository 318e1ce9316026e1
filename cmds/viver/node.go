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
	"viver.lan/internal/sleep"
)

func newNodeSet(env environment) *cobra.Command {
	var name, address, key, socket string
	cmd := &cobra.Command{
		Use:   "set MAC",
		Short: "Set the name or the address of a machine",
		Long: `Set the name or the address of a machine, for all nodes. Such an override is signed
with the owner's key. Nodes pass it on and remember it while any of them is on; a node
with a saved-data disk remembers it longer. A machine takes its name at its next
boot, and its address when it next asks for one: at its next boot, or when half of its
lease is over.

The key stays on the operator's computer: reach a node from there through ssh.`,
		Example: `  ssh -fNL ./node.sock:/run/viver/vfield.sock root@10.77.0.2
  viver node set 52:54:00:12:34:56 --name lab-07 --ip 10.0.0.7 --socket ./node.sock`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			mac, err := ether.ParseMAC(given[0])
			if err != nil {
				return usageError{fmt.Errorf("%q is no MAC address; viver node list shows those of all machines", given[0])}
			}
			overrides, err := newOverrides(mac, cmd.Flags().Changed, name, address)
			if err != nil {
				return usageError{err}
			}
			path, err := keyPath(env, key)
			if err != nil {
				return err
			}
			owner, err := sign.ReadPrivateKey(path)
			if err != nil {
				return err
			}
			for _, o := range overrides {
				if err := publish(cmd.Context(), socket, owner, o); err != nil {
					return err
				}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&name, "name", "", "its hostname; \"\" removes the override")
	flags.StringVar(&address, "ip", "", "the IPv4 `address` that boot hosts reserve for it; \"\" removes the reservation")
	flags.StringVar(&key, "key", "", "the owner's secret key `file` (default: "+sign.KeyFile+" in ~/.config/viver)")
	flags.StringVar(&socket, "socket", control.Socket, "where the block daemon listens")
	cmd.MarkFlagsOneRequired("name", "ip")
	return cmd
}

// newOverrides makes the overrides for a machine, not signed yet. A flag that is given
// empty takes an earlier override back.
func newOverrides(mac ether.MAC, given func(flag string) bool, name, address string) (overrides []operator.Override, err error) {
	if given("name") {
		if name != "" {
			err = hostname.Check(name)
		}
		overrides = append(overrides, operator.Override{Key: operator.NameOf(mac), Value: name})
	}
	if err == nil && given("ip") {
		if address != "" {
			_, err = operator.ParseAddress(address)
		}
		overrides = append(overrides, operator.Override{Key: operator.AddressOf(mac), Value: address})
	}
	return overrides, err
}

// A network has a name some ten seconds after it began.
const (
	nameWait  = 90 * time.Second
	nameEvery = 500 * time.Millisecond
)

// awaitNetwork returns the name of the network that the node is on.
func awaitNetwork(ctx context.Context, socket string) (string, error) {
	for end := time.Now().Add(nameWait); time.Now().Before(end); {
		status, err := askStatus(ctx, socket)
		if err != nil {
			return "", err
		}
		if status.Network != "" {
			return status.Network, nil
		}
		if sleep.For(ctx, nameEvery) != nil {
			return "", ctx.Err()
		}
	}
	return "", errors.New("the node does not know its network's name yet, which is part of what is signed: is it connected to the others?")
}

// publish makes an override newer than those that the node knows, signs it and sends
// it to the node.
func publish(ctx context.Context, socket string, owner sign.PrivateKey, e operator.Override) error {
	network, err := awaitNetwork(ctx, socket)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askDeadline)
	defer cancel()
	node := control.NewClient(socket)
	known, err := node.Overrides(ctx)
	if err != nil {
		return err
	}
	// The operator may use two computers, one with a slow clock: Sequence decides which
	// override is newer, not Time.
	e.Network, e.Time, e.Sequence = network, uint64(time.Now().UnixNano()), 1
	for _, k := range known {
		e.Sequence = max(e.Sequence, k.Sequence+1)
	}
	e.Signature = owner.Sign(sign.Override, e.SignedBytes())
	return node.Put(ctx, e)
}
