package blockdaemon

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"time"

	"viver.lan/internal/cluster"
	"viver.lan/internal/durable"
	"viver.lan/internal/identity"
	"viver.lan/internal/identity/keyfile"
)

// openIdentity returns this node's key, which is made at the first start, and the
// number of this start. A key that cannot be saved is used all the same: the node
// is another one after a restart.
func openIdentity(file, sequence string, log *slog.Logger) (key identity.Key, start uint64, err error) {
	key, made, err := keyfile.Open(file)
	if err != nil {
		log.Warn("this node's key is not saved; another one is used", "error", err)
		if key, err = identity.Generate(); err != nil {
			return key, 0, err
		}
	}
	// Others go by the number, not by the clock, so a wrong clock does no harm.
	start, err = keyfile.NextStart(sequence, uint64(time.Now().Unix()))
	if err != nil {
		log.Warn("the number of this start is not saved", "error", err)
	}
	log.Info("this node is", "id", key.ID(), "new", made)
	return key, start, nil
}

// readNetworkName reads what saveNetworkName wrote, "" for nothing.
func readNetworkName(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// saveNetworkName saves the network's name for the next start of this daemon, once
// it is known.
func saveNetworkName(ctx context.Context, c *cluster.Cluster, file string, log *slog.Logger) error {
	return follow(ctx, c, func() bool {
		name := c.Network()
		if name == "" {
			return false
		}
		if err := durable.WriteFile(file, []byte(name+"\n"), 0o644); err != nil {
			log.Warn("the network's name is not saved for a restart", "error", err)
		}
		return true
	})
}
