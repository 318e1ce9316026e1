package blockdaemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"viver.lan/internal/cluster"
	"viver.lan/internal/durable"
	"viver.lan/internal/sleep"
	"viver.lan/internal/sshkey"
)

// hostKeyEvery is how often we look for the key that uinit leaves when the root is
// mounted and its runes have run.
const hostKeyEvery = time.Second

// publishHostKey tells the members this machine's SSH host key, once the file
// is there.
func publishHostKey(ctx context.Context, c *cluster.Cluster, file string, log *slog.Logger) error {
	text, err := os.ReadFile(file)
	for errors.Is(err, os.ErrNotExist) {
		if sleep.For(ctx, hostKeyEvery) != nil {
			return nil
		}
		text, err = os.ReadFile(file)
	}
	var key sshkey.Key
	if err == nil {
		key, err = sshkey.Parse(text)
	}
	if err == nil {
		err = c.UpdateMeta(ctx, func(m *cluster.Meta) { m.HostKey = key })
	}
	if err != nil && ctx.Err() == nil {
		log.Warn("the SSH host key is not published", "file", file, "error", err)
	}
	return nil
}

// writeKnownHosts writes the members' host keys into a file until ctx ends.
func writeKnownHosts(ctx context.Context, c *cluster.Cluster, file string, log *slog.Logger) error {
	var written []byte
	return follow(ctx, c, func() bool {
		if now := knownHosts(c.Members()); !bytes.Equal(now, written) {
			if err := durable.WriteFile(file, now, 0o644); err != nil {
				log.Warn("the members' SSH host keys are not written", "error", err)
			}
			written = now
		}
		return false
	})
}

// knownHosts is what the living members say of themselves, as far as their names
// are their own.
func knownHosts(members []cluster.Member) []byte {
	var hosts []sshkey.Host
	for _, m := range members {
		if m.State == cluster.Alive && m.NameState == cluster.Owned {
			hosts = append(hosts, sshkey.Host{Name: m.Meta.Hostname, Address: m.Addr.Addr(), Key: m.Meta.HostKey})
		}
	}
	return sshkey.KnownHosts(hosts)
}
