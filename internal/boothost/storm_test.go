package boothost

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/cputime"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/manifest"
	"viver.lan/internal/netbed"
	"viver.lan/internal/netbed/netbedtest"
	"viver.lan/internal/testtable"
)

const (
	// stormHost tells a process of this test that it is a boot host: its place
	// among all, then their addresses.
	stormHost = "VIVER_TEST_STORM_HOST"
	// stormFull asks for files as large as Debian's and more nodes up.
	stormFull = "VIVER_STORM_FULL"
	// stormPool is what the machines get their addresses from; the bed's own are
	// elsewhere.
	stormPool = "10.9.128.0/17"
)

// stormImage is an image of sizes as they are for Debian 12, or of a sixteenth.
func stormImage() *memImage {
	part := 16
	if os.Getenv(stormFull) != "" {
		part = 1
	}
	return imageOf(map[string]int{
		manifest.Kernel: 8_200_000 / part, manifest.Initramfs: 16_900_000 / part,
		"boot/undionly.kpxe": 74_213, "boot/shimx64.efi": 1_036_152 / part, "boot/grubx64.efi": 2_348_480 / part,
	})
}

// TestStormHost is the body of such a process; by itself it does nothing.
func TestStormHost(t *testing.T) {
	words := strings.Fields(os.Getenv(stormHost))
	if len(words) == 0 {
		return
	}
	place, err := strconv.Atoi(words[0])
	if err != nil {
		t.Fatal(err)
	}
	var addrs []netip.AddrPort
	for _, w := range words[1:] {
		addrs = append(addrs, netip.MustParseAddrPort(w))
	}
	iface, err := net.InterfaceByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	self, peers := addrs[place], slices.Delete(slices.Clone(addrs), place, place+1)
	cfg := testConfig(t)
	cfg.Image, cfg.Interface, cfg.Pool = stormImage(), *iface, netip.MustParsePrefix(stormPool)
	cfg.Address, cfg.HTTPPort = netip.PrefixFrom(self.Addr(), 16), self.Port()
	cfg.Peers = func() []netip.AddrPort { return peers }
	cfg.Rank = func() int { return place }
	cfg.ProbeAddress = onLink(*iface)
	h := newHost(t, cfg)
	g, ctx := errgroup.WithContext(t.Context())
	g.Go(func() error { return h.ServeFiles(ctx) })
	if place < Hosts {
		g.Go(func() error { return h.ServeNetboot(ctx) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestNetnsBootStorm switches 64 machines on at one moment, with more and more
// nodes up beside the first, on links of 100 Mbit/s. Each machine is played from
// DHCP to the last byte of its initramfs by testdata/machine.sh:
//
//	node 0: first node (DHCP, TFTP, HTTP)    nodes 1 and 2: stand-bys (the same, later)
//	nodes 3...: up (HTTP only)               the last 64: switched on
//
// At the end one of the nodes that the others count on is dead.
func TestNetnsBootStorm(t *testing.T) {
	netbedtest.Need(t, "curl", "tftp", "atftp", "udhcpc", "ss")
	if !netbedtest.Enter(t) {
		return
	}
	const machines = 64
	ups := []int{0, 1, 4}
	if os.Getenv(stormFull) != "" {
		ups = append(ups, 16)
	}
	most := ups[len(ups)-1]
	s := newStorm(t, machines, most)
	var alone, last calm
	for _, up := range ups {
		c := s.round(up, false)
		// Every host has its share of the kernels and initramfs; boot programs and
		// scripts come from the first, and packets have headers.
		if want := machines/float64(1+up)*1.1 + machines*0.1 + 1; c.worth > want {
			t.Errorf("with %d nodes up the first one sent %.1f kernels with initramfs, want %.1f at most", up, c.worth, want)
		}
		if up == 0 {
			alone = c
		}
		last = c
	}
	// With files of a sixteenth a busy machine, not its links, could be the limit.
	if os.Getenv(stormFull) != "" && last.slowest() > alone.slowest() {
		t.Errorf("%.1f s with %d nodes up, %.1f s with none", last.slowest(), most, alone.slowest())
	}
	if c := s.round(most, true); c.again == 0 {
		t.Error("nobody was sent to the node that is dead")
	}
}

// storm is a room that is switched on again and again.
type storm struct {
	t        *testing.T
	bed      *netbed.Bed
	machines []*netbed.Node
	dir      string
	size     int // of kernel and initramfs
}

func newStorm(t *testing.T, machines, up int) *storm {
	t.Helper()
	bed, err := netbed.New(netbed.Config{Nodes: 1 + up + machines, Rate: 100e6, Cards: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bed.Close() })
	s := &storm{t: t, bed: bed, machines: bed.Nodes()[1+up:], dir: t.TempDir()}
	image := stormImage()
	image.write(t, s.dir)
	s.size = len(image.files[manifest.Kernel]) + len(image.files[manifest.Initramfs])
	return s
}

// calm is what was found after a storm.
type calm struct {
	seconds []float64 // of each machine, ascending
	worth   float64   // what the first node sent, in kernels with initramfs
	again   int       // how often a machine found nothing and waited
}

func (c calm) slowest() float64 { return c.seconds[len(c.seconds)-1] }

// round switches all machines on with so many nodes up. With dead the last of
// these has just died, and nobody knows.
func (s *storm) round(up int, dead bool) calm {
	s.t.Helper()
	ctx, stop := context.WithCancel(s.t.Context())
	hosts := s.hosts(ctx, 1+up, dead)
	defer hosts.Wait()
	defer stop()
	before, busy := s.sent(), cpuTimes(s.t)
	begin := time.Now()
	var c calm
	var mu sync.Mutex
	var all sync.WaitGroup
	for i, node := range s.machines {
		all.Go(func() {
			said, err := s.boot(ctx, node, i)
			took := time.Since(begin).Seconds()
			mu.Lock()
			defer mu.Unlock()
			c.seconds = append(c.seconds, took)
			again := strings.Count(said, "again after")
			c.again += again
			if again > 0 && !dead {
				s.t.Logf("machine %d with %d nodes up tried again:\n%s", i, up, said)
			}
			if err != nil {
				s.t.Errorf("machine %d with %d nodes up: %v\n%s", i, up, err, said)
			}
		})
	}
	all.Wait()
	slices.Sort(c.seconds)
	bytes := s.sent() - before
	c.worth = float64(bytes) / float64(s.size)
	nodes := strconv.Itoa(up)
	if dead {
		nodes += ", one dead"
	}
	rounded := func(places int, x float64) string { return strconv.FormatFloat(x, 'f', places, 64) }
	storms().Add(s.t, len(s.machines), nodes, rounded(1, c.seconds[0]), rounded(1, c.slowest()),
		rounded(0, float64(bytes)/1e6), rounded(1, c.worth), c.again, rounded(0, 100*cputime.Busy(busy, cpuTimes(s.t)))+" %")
	return c
}

func storms() testtable.Table {
	return testtable.Table{Name: "storm", Columns: []string{"machines", "nodes up", "seconds to the first", "to the last",
		"MB from the first node", "kernels with initramfs", "tried again", "machine busy"}}
}

// boot plays one machine and returns what it said.
func (s *storm) boot(ctx context.Context, node *netbed.Node, i int) (string, error) {
	script, err := filepath.Abs("testdata/machine.sh")
	if err != nil {
		return "", err
	}
	clients := []string{"curl", "atftp", "tftp", "uefi"}
	machine := node.Command(ctx, script, clients[i%len(clients)], s.dir)
	machine.Dir = filepath.Join(s.dir, "machine"+strconv.Itoa(i))
	if err := os.MkdirAll(machine.Dir, 0o755); err != nil {
		return "", err
	}
	said, err := machine.CombinedOutput()
	return string(said), err
}

// hosts starts n boot hosts and returns when they serve.
func (s *storm) hosts(ctx context.Context, n int, dead bool) *sync.WaitGroup {
	s.t.Helper()
	addrs := []string{s.bed.Node(0).AddrPort(httpPort).String()}
	for i := 1; i < n; i++ {
		addrs = append(addrs, s.bed.Node(i).AddrPort(6880).String())
	}
	var running sync.WaitGroup
	for i := range addrs {
		if dead && i == n-1 {
			continue
		}
		host := s.bed.Node(i).Command(ctx, os.Args[0], "-test.run=^TestStormHost$", "-test.timeout=15m")
		host.Env = append(os.Environ(), stormHost+"="+strconv.Itoa(i)+" "+strings.Join(addrs, " "))
		said := &bytes.Buffer{}
		host.Stdout, host.Stderr = said, said
		running.Go(func() {
			if err := host.Run(); ctx.Err() == nil { // else it was we who ended it
				s.t.Errorf("boot host %d: %v\n%s", i, err, said)
			}
		})
		_, port, _ := net.SplitHostPort(addrs[i])
		s.await(s.bed.Node(i), "-t", port)
		if i < Hosts {
			s.await(s.bed.Node(i), "-u", strconv.Itoa(dhcp.ServerPort))
		}
	}
	return &running
}

// await waits until somebody listens on a node's port.
func (s *storm) await(node *netbed.Node, protocol, port string) {
	s.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		out, err := node.Command(s.t.Context(), "ss", "-Hln", protocol, "sport = :"+port).CombinedOutput()
		if err == nil && len(out) > 0 {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("node %d does not listen on %s: %v %s", node.Index(), port, err, out)
		}
	}
}

// sent is what the first node has sent so far, in bytes.
func (s *storm) sent() int64 {
	s.t.Helper()
	n, err := s.bed.Node(0).Sent()
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// cpuTimes is what the processors have done so far.
func cpuTimes(t *testing.T) cputime.Times {
	t.Helper()
	times, err := cputime.Read()
	if err != nil {
		t.Fatal(err)
	}
	return times
}
