package boothost

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/manifest"
	"viver.lan/internal/netbed"
	"viver.lan/internal/netbed/netbedtest"
)

// iPXE is sent in turn to every node that holds the boot files; others, and
// other files, stay here.
func TestElsewhere(t *testing.T) {
	cfg := testConfig(t)
	peers := []netip.AddrPort{netip.MustParseAddrPort("10.77.0.5:6880"), netip.MustParseAddrPort("10.77.0.6:80")}
	cfg.Peers = func() []netip.AddrPort { return peers }
	h := newHost(t, cfg)
	server := newHTTPServer(h)
	get := func(agent, path string) string {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("User-Agent", agent)
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		if w.Code == http.StatusFound {
			return w.Header().Get("Location")
		}
		return strconv.Itoa(w.Code)
	}
	kernel := "/" + h.catalog.imagePath(manifest.Kernel)
	const ipxe = "iPXE/1.0.0+"
	seen := map[string]int{}
	for range 6 {
		seen[get(ipxe, kernel)]++
	}
	for _, want := range []string{"http://10.77.0.5:6880" + kernel + "?stay", "http://10.77.0.6:80" + kernel + "?stay", "200"} {
		if seen[want] != 2 {
			t.Errorf("of 6 requests %d went to %s: %v", seen[want], want, seen)
		}
	}
	for _, c := range []struct{ agent, path string }{
		{"UefiHttpBoot/1.0", kernel}, {"", kernel}, {ipxe, kernel + "?stay"}, {ipxe, "/boot.ipxe"}, {ipxe, "/" + h.catalog.imagePath(manifest.File)},
	} {
		for range 3 {
			if got := get(c.agent, c.path); got != "200" {
				t.Errorf("%q asks for %s: %s", c.agent, c.path, got)
			}
		}
	}
	peers = nil
	if got := get(ipxe, kernel); got != "200" {
		t.Errorf("with no peers: %s", got)
	}
}

// stormHost is how a process of this test learns that it is a boot host: the
// address it has and those of the other nodes.
const stormHost = "VIVER_TEST_STORM_HOST"

// TestStormHost is the body of such a process; by itself it does nothing.
func TestStormHost(t *testing.T) {
	words := strings.Fields(os.Getenv(stormHost))
	if len(words) == 0 {
		return
	}
	var addrs []netip.AddrPort
	for _, w := range words {
		addrs = append(addrs, netip.MustParseAddrPort(w))
	}
	cfg := testConfig(t)
	cfg.Address, cfg.HTTPPort = netip.PrefixFrom(addrs[0].Addr(), 16), addrs[0].Port()
	cfg.Peers = func() []netip.AddrPort { return addrs[1:] }
	if err := newHost(t, cfg).ServeFiles(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestNetnsBootStorm switches 24 machines on at one moment, with none, one and
// five nodes up beside the boot host, on links of 100 Mbit/s. Each machine
// fetches kernel and initramfs with a real HTTP client.
func TestNetnsBootStorm(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip(err)
	}
	if !netbedtest.Enter(t) {
		return
	}
	const machines, most = 24, 5
	bed, err := netbed.New(netbed.Config{Nodes: 1 + most + machines, Rate: 100e6})
	if err != nil {
		t.Fatal(err)
	}
	defer bed.Close()
	image := testImage(t)
	files := []string{manifest.Kernel, manifest.Initramfs}
	size := int64(len(image.files[files[0]]) + len(image.files[files[1]]))
	t.Logf("%d machines, each fetches %.1f MB", machines, float64(size)/1e6)
	t.Log("| nodes up | seconds to the last | bytes from the first node / one machine's |")
	var seconds []float64
	for _, up := range []int{0, 1, most} {
		ctx, stop := context.WithCancel(t.Context())
		var hosts []string
		for i := range 1 + up {
			hosts = append(hosts, bed.Node(i).AddrPort(6880).String())
		}
		var running errgroup.Group
		for i := range hosts {
			others := append(append([]string{hosts[i]}, hosts[:i]...), hosts[i+1:]...)
			host := bed.Node(i).Command(ctx, os.Args[0], "-test.run=^TestStormHost$", "-test.timeout=5m")
			host.Env = append(os.Environ(), stormHost+"="+strings.Join(others, " "))
			running.Go(func() error { _ = host.Run(); return nil }) // it is killed
			await(t, bed.Node(i), hosts[i])
		}
		before, err := bed.Node(0).Sent()
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		var all errgroup.Group
		for m := range machines {
			node := bed.Node(1 + most + m)
			all.Go(func() error {
				for _, f := range files {
					url := "http://" + hosts[0] + "/boot/" + image.manifest.Infohash.String() + "/" + f
					out, err := node.Command(ctx, curl, "-sfL", "-A", "iPXE/1.21", "-o", "/dev/null", "-w", "%{size_download}", url).Output()
					if err != nil || string(out) != strconv.Itoa(len(image.files[f])) {
						return fmt.Errorf("machine %d: %s: %s bytes, %w", m, f, out, err)
					}
				}
				return nil
			})
		}
		if err := all.Wait(); err != nil {
			t.Fatal(err)
		}
		took := time.Since(begin).Seconds()
		after, err := bed.Node(0).Sent()
		if err != nil {
			t.Fatal(err)
		}
		sent := float64(after-before) / float64(size)
		t.Logf("| %d | %.1f | %.1f |", up, took, sent)
		if want := machines/float64(1+up)*1.1 + 1; sent > want {
			t.Errorf("with %d nodes up the first one sent the files %.1f times, want %.1f", up, sent, want)
		}
		seconds = append(seconds, took)
		stop()
		_ = running.Wait()
	}
	if seconds[1] > seconds[0] || seconds[2] > seconds[1] {
		t.Errorf("more nodes, and it took longer: %v s", seconds)
	}
}

// await waits until a node's server answers.
func await(t *testing.T, node *netbed.Node, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		conn, err := node.Dial(ctx, "tcp4", addr)
		if err == nil {
			conn.Close()
			return
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
