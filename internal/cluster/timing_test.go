package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
)

// room starts n members at 127.0.net.1 and up, and waits until all know all.
func room(t *testing.T, net, n int) (members []*Cluster, kill []func()) {
	t.Helper()
	var seeds []netip.AddrPort
	for i := range n {
		cfg := config(t, i+1, seeds...)
		cfg.Meta.Hostname = fmt.Sprintf("node-%d-%d", net, i+1)
		cfg.Key = identitytest.Key(t, cfg.Meta.Hostname)
		cfg.Bind = netip.AddrFrom4([4]byte{127, 0, byte(net), byte(i + 1)})
		c, stop := start(t, cfg)
		members, kill = append(members, c), append(kill, stop)
		seeds = []netip.AddrPort{members[0].Addr()}
	}
	for _, c := range members {
		waitFor(t, c, fmt.Sprintf("%d alive", n), func(m map[identity.ID]Member) bool {
			n := n
			for _, m := range m {
				if m.State == Alive {
					n--
				}
			}
			return n == 0
		})
	}
	return members, kill
}

// TestTimeToDecide measures how long the survivors take to call a member dead
// that was switched off silently: 6 to 7 s on a machine that has time for
// all of them. Twice as long is too long for a busy one, too.
func TestTimeToDecide(t *testing.T) {
	t.Parallel()
	var tests sync.WaitGroup // they mostly wait, so all at once
	for net, n := range []int{2, 4, 8, 16} {
		tests.Go(func() {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				members, kill := room(t, 100+net, n)
				begin := time.Now()
				kill[n-1]()
				var took []time.Duration
				var mu sync.Mutex
				var wg sync.WaitGroup
				for _, c := range members[:n-1] {
					wg.Go(func() {
						waitFor(t, c, "dead", became(Dead, members[n-1].id()))
						mu.Lock()
						defer mu.Unlock()
						took = append(took, time.Since(begin))
					})
				}
				wg.Wait()
				slices.Sort(took)
				t.Logf("of %d members one dies: the first survivor decides after %.1f s, the last after %.1f s",
					n, took[0].Seconds(), took[len(took)-1].Seconds())
				if first := took[0]; first > 15*time.Second {
					t.Errorf("the first survivor took %s to decide", first)
				}
			})
		})
	}
	tests.Wait()
}
