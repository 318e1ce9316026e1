package blockdaemon

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"viver.lan/internal/cluster"
	"viver.lan/internal/durable"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/sshkey"
)

// What uinit leaves on one machine is what ssh finds on another, for as long as
// the machine is a member.
func TestHostKeysReachTheMembers(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	member := func(name, addr string, seeds ...netip.AddrPort) (c *cluster.Cluster, file string) {
		c, err := cluster.New(cluster.Config{Key: identitytest.Key(t, name), Bind: netip.MustParseAddr(addr), Seeds: seeds, Meta: cluster.Meta{Hostname: name}, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		return c, filepath.Join(t.TempDir(), "known_hosts")
	}
	a, known := member("lab-01", "127.0.140.1")
	b, theirs := member("lab-02", "127.0.140.2", a.Addr())
	left := filepath.Join(t.TempDir(), "key.pub")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	leaving, leave := context.WithCancel(ctx)
	wg.Go(func() { _ = a.Run(leaving) })
	wg.Go(func() { _ = b.Run(ctx) })
	wg.Go(func() { _ = publishHostKey(ctx, a, left, log) })
	wg.Go(func() { _ = writeKnownHosts(ctx, a, known, log) })
	wg.Go(func() { _ = writeKnownHosts(ctx, b, theirs, log) })
	key := sshkey.Key{1, 2, 3}
	if err := durable.WriteFile(left, []byte(key.String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{known, theirs} {
		eventually(t, "the key is known", func() bool {
			text, _ := os.ReadFile(file)
			return string(text) == "lab-01,127.0.140.1 "+key.String()+"\n"
		})
	}
	leave()
	eventually(t, "the key is forgotten", func() bool {
		text, err := os.ReadFile(theirs)
		return err == nil && len(text) == 0
	})
}
