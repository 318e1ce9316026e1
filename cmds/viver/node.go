package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"viver.lan/internal/control"
	"viver.lan/internal/operator"
	"viver.lan/internal/sign"
)

func newNodeSet(env environment) *cobra.Command {
	var name, key, socket string
	cmd := &cobra.Command{
		Use:   "set MAC",
		Short: "Say something about a machine to all nodes",
		Long: `Say something about a machine to all nodes. It is signed with the owner's key,
so nodes believe it whoever passes it on, and they remember it while any of them
is on.

The key stays on the operator's desk: reach a node from there through ssh.`,
		Example: `  ssh -fNL ./node.sock:/run/viver/vfield.sock root@10.77.0.2
  viver node set 52:54:00:12:34:56 --name lab-3 --socket ./node.sock`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			mac, err := net.ParseMAC(given[0])
			if err != nil || len(mac) != 6 {
				return usageError{fmt.Errorf("%q is no MAC address; viver node list shows those of all machines", given[0])}
			}
			if name != "" && !hostLabel(name) {
				return usageError{fmt.Errorf("%q is no host name: want up to 63 letters, digits and hyphens", name)}
			}
			path, err := keyPath(env, key)
			if err != nil {
				return err
			}
			owner, err := sign.ReadPrivateKey(path)
			if err != nil {
				return err
			}
			return say(cmd.Context(), socket, owner, operator.NameOf(mac.String()), name)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&name, "name", "", "what to call it; \"\" takes its name away")
	flags.StringVar(&key, "key", "", "the owner's secret key `file` (default: "+sign.KeyFile+" in ~/.config/viver)")
	flags.StringVar(&socket, "socket", control.Socket, "where the block daemon listens")
	_ = cmd.MarkFlagRequired("name") // the flag exists
	return cmd
}

// say signs an entry that is newer than what the node knows and hands it over.
func say(ctx context.Context, socket string, owner sign.PrivateKey, key, value string) error {
	ctx, cancel := context.WithTimeout(ctx, askDeadline)
	defer cancel()
	node := control.NewClient(socket)
	known, err := node.Entries(ctx)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("no block daemon listens on %s: %w", socket, err)
	}
	if err != nil {
		return err
	}
	e := operator.Entry{Key: key, Value: value, Sequence: uint64(time.Now().UnixNano())}
	for _, k := range known {
		if k.Key == key { // the clock of one of two desks may be slow
			e.Sequence = max(e.Sequence, k.Sequence+1)
		}
	}
	e.Signature = owner.Sign(sign.Entry, e.Message())
	return node.Put(ctx, e)
}

// hostLabel reports whether s can be a host's name (RFC 1123, 2.1).
func hostLabel(s string) bool {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
	return len(s) <= 63 && s == strings.Trim(s, "-") && strings.Trim(s, allowed) == ""
}
