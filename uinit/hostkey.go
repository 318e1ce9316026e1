package main

import (
	"errors"
	"fmt"
	"os"

	"viver.lan/internal/control"
	"viver.lan/internal/durable"
	"viver.lan/internal/sshkey"
)

// hostKeyInRoot is where OpenSSH keeps the public half of its key.
const hostKeyInRoot = "/etc/ssh/ssh_host_ed25519_key.pub"

// writeHostKey writes the root's SSH host key for the block daemon, which cannot see
// the root and publishes it to the members.
func (n *node) writeHostKey() error {
	text, err := os.ReadFile(n.root + hostKeyInRoot)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("publish the SSH host key: %w", err)
	}
	key, err := sshkey.Parse(text)
	if err != nil {
		return fmt.Errorf("publish the SSH host key: %s: %w", hostKeyInRoot, err)
	}
	return durable.WriteFile(control.HostKeyFile, []byte(key.String()+"\n"), 0o644)
}
