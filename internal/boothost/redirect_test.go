package boothost

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"viver.lan/internal/manifest"
)

// iPXE, and our initramfs for the drivers, are sent in turn to every node that
// holds the boot files; others, and other files, stay here.
func TestRedirect(t *testing.T) {
	cfg := testConfig(t)
	peers := []netip.AddrPort{netip.MustParseAddrPort("10.77.0.5:6880"), netip.MustParseAddrPort("10.77.0.6:80")}
	cfg.Peers = func() []netip.AddrPort { return peers }
	withNICs(t, cfg.Image.(*memImage))
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
	kernel, initramfs := "/"+h.catalog.imagePath(manifest.Kernel), "/"+h.catalog.imagePath(manifest.Initramfs)
	const ipxe = "iPXE/1.0.0+"
	drivers := "/" + h.catalog.imagePath(manifest.Drivers)
	cards := "/" + h.catalog.imagePath(manifest.NICs)
	const card = "?card=018086100e&pci=100e8086&"
	const ours = "Go-http-client/1.1"
	for _, list := range [][]netip.AddrPort{peers, peers[:1]} {
		peers = list
		seen := map[string]int{}
		for range 2 * (1 + len(peers)) { // as machines come that fetch one after the other
			seen[get(ipxe, kernel)+" kernel"]++
			seen[get(ipxe, initramfs)+" initramfs"]++
			seen[get(ours, drivers)+" drivers"]++
			seen[get(ipxe, cards+card)+" cards"]++
		}
		want := map[string]int{"200 kernel": 2, "200 initramfs": 2, "200 drivers": 2, "200 cards": 2}
		for _, p := range peers {
			want["http://"+p.String()+kernel+"?stay kernel"] = 2
			want["http://"+p.String()+initramfs+"?stay initramfs"] = 2
			want["http://"+p.String()+drivers+"?stay drivers"] = 2
			want["http://"+p.String()+cards+card+"stay cards"] = 2
		}
		if !maps.Equal(seen, want) {
			t.Errorf("with %d peers requests went to %v, want %v", len(peers), seen, want)
		}
	}
	for _, c := range []struct{ agent, path string }{
		{"UefiHttpBoot/1.0", kernel}, {"", kernel}, {ipxe, kernel + "?stay"}, {ipxe, "/boot.ipxe"}, {ipxe, "/" + h.catalog.imagePath(manifest.File)}, {ours, drivers + "?stay"}, {ours, kernel}, {ipxe, cards + card + "stay"},
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

// GRUB's configuration names each node in turn, and the boot host after it. However
// it asks, all texts are equally long: it asks for that first.
func TestGrubIsSpread(t *testing.T) {
	cfg := testConfig(t)
	peers := []netip.AddrPort{netip.MustParseAddrPort("10.77.0.5:6880"), netip.MustParseAddrPort("10.77.0.6:80")}
	cfg.Peers = func() []netip.AddrPort { return peers }
	h := newHost(t, cfg)
	server := newHTTPServer(h)
	length := 0
	ask := func(method, client string) (devices string) {
		t.Helper()
		r := httptest.NewRequest(method, "/grub/grub.cfg", nil)
		r.RemoteAddr = client + ":1480"
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		got, _ := strconv.Atoi(w.Header().Get("Content-Length"))
		if length == 0 {
			length = got
		}
		if w.Code != http.StatusOK || got != length {
			t.Errorf("%s: %d, %d bytes, earlier %d", method, w.Code, got, length)
		}
		_, rest, _ := strings.Cut(w.Body.String(), "for from in ")
		devices, _, _ = strings.Cut(rest, "; do")
		return strings.Join(strings.Fields(devices), " ")
	}
	const self = "http," + selfIP + " $root"
	for _, want := range []map[string]int{
		{"http,10.77.0.5:6880 " + self: 2, "http,10.77.0.6 " + self: 2, self: 2},
		{"http,10.77.0.5:6880 " + self: 2, self: 2},
	} {
		peers = peers[:len(want)-1]
		seen := map[string]int{}
		for range 2 * (1 + len(peers)) {
			ask(http.MethodHead, "10.77.9.9") // does not count
			seen[ask(http.MethodGet, "10.77.9.9")]++
		}
		if !maps.Equal(seen, want) {
			t.Errorf("with %d peers machines were told %v, want %v", len(peers), seen, want)
		}
	}
	for range 3 {
		if got := ask(http.MethodGet, "10.77.0.5"); strings.Contains(got, "10.77.0.5") {
			t.Errorf("a node that is restarted is sent to itself: %s", got)
		}
	}
	h.cfg.Reachable = func(p netip.AddrPort) bool { return p != peers[0] }
	for range 3 {
		if got := ask(http.MethodGet, "10.77.9.9"); strings.Contains(got, "10.77.0.5") {
			t.Errorf("sent to a node that is gone: %s", got)
		}
	}
	peers = nil
	if got := ask(http.MethodGet, "10.77.9.9"); got != self {
		t.Errorf("with no peers: %q", got)
	}
}
