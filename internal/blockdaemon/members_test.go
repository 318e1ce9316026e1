package blockdaemon

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"testing"

	"viver.lan/internal/cluster"
	"viver.lan/internal/identity/identitytest"
)

func TestWhoIsToldToEndSaysGoodbye(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	member := func(name, addr string, seeds ...netip.AddrPort) *cluster.Cluster {
		c, err := cluster.New(cluster.Config{Key: identitytest.Key(t, name), Start: 1, Bind: netip.MustParseAddr(addr), Seeds: seeds,
			Meta: cluster.Meta{Hostname: name}, Log: log})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a := member("stays", "127.0.141.1")
	b := member("ends", "127.0.141.2", a.Addr())
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	partial, end := context.WithCancel(ctx)
	wg.Go(func() { _ = a.Run(ctx) })
	wg.Go(func() { _ = takePart(partial, b, log) })
	other := func() cluster.State {
		for _, m := range a.Members() {
			if !m.Self {
				return m.State
			}
		}
		return ""
	}
	eventually(t, "the other is there", func() bool { return other() == cluster.Alive })
	end()
	eventually(t, "the other is gone", func() bool { return other() != cluster.Alive })
	if s := other(); s != cluster.Left {
		t.Errorf("the other is %s, want %s", s, cluster.Left)
	}
}
