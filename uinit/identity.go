package main

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"viver.lan/internal/control"
	"viver.lan/internal/disks"
	"viver.lan/internal/durable"
	"viver.lan/internal/identity"
	"viver.lan/internal/identity/keyfile"
)

// takeIdentity gives the block daemon two things from the saved-data disk: this
// machine's key, so that it is the same node as before, and the network's name.
// Without them the daemon makes a key. The disk itself is mounted later.
func (n *node) takeIdentity() error {
	fit, _ := disks.InOrder(n.found, n.image.RootFile().SHA256)
	if len(fit) == 0 {
		return nil
	}
	kept := fit[0].Kept
	n.boot.SavedNetwork = strings.TrimSpace(string(kept[disks.NetworkNameFile]))
	if _, err := os.Lstat(control.IdentityFile); !errors.Is(err, fs.ErrNotExist) {
		return err // tried again: the daemon may have made one
	}
	name := keyfile.NameFor(n.boot.MAC)
	text, ok := kept[name]
	if !ok {
		return nil
	}
	key, err := identity.ParseKey(text)
	if err != nil {
		n.log.Warn("the key on the saved-data disk is not used", "file", name, "error", err)
		return nil
	}
	start, err := strconv.ParseUint(strings.TrimSpace(string(kept[keyfile.SequenceFor(name)])), 10, 64)
	if err == nil {
		err = durable.WriteFile(control.SequenceFile, []byte(strconv.FormatUint(start, 10)), 0o600)
	}
	if err != nil {
		n.log.Warn("other nodes may ignore what this node says for a while", "error", err)
	}
	return keyfile.Write(control.IdentityFile, key)
}
