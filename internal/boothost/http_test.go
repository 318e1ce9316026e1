package boothost

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metrics"
)

// testServer runs the handler on a port of the loopback.
func testServer(t *testing.T, cfg Config) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(serverOf(t, newHost(t, cfg)))
	t.Cleanup(server.Close)
	return server
}

// serverOf is the handler of a host, without its port.
func serverOf(t *testing.T, h *Host) *httpServer {
	t.Helper()
	s := newHTTPServer(h)
	var err error
	if s.page, err = newPage(); err != nil {
		t.Fatal(err)
	}
	return s
}

func do(t *testing.T, method, url string, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // follows no redirect
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func TestHTTP(t *testing.T) {
	cfg := testConfig(t)
	image := cfg.Image.(*memImage)
	server := testServer(t, cfg)
	kernel := image.files["vmlinuz"]
	base := server.URL + "/boot/" + image.manifest.Infohash.String()

	resp, body := do(t, "GET", base+"/vmlinuz")
	if resp.StatusCode != 200 || !bytes.Equal(body, kernel) || resp.ContentLength != int64(len(kernel)) {
		t.Errorf("kernel: %s, %d bytes", resp.Status, len(body))
	}
	// What was signed is served to the byte, or no node would take it.
	text, signature := image.Signed()
	for name, want := range map[string][]byte{manifest.File: text, manifest.Signature: signature, manifest.Metainfo: image.Metainfo()} {
		if resp, body := do(t, "GET", base+"/"+name); resp.StatusCode != 200 || !bytes.Equal(body, want) {
			t.Errorf("%s: %s, %q, want %q", name, resp.Status, body, want)
		}
	}
	resp, body = do(t, "HEAD", base+"/vmlinuz")
	if resp.StatusCode != 200 || len(body) != 0 || resp.ContentLength != int64(len(kernel)) || resp.Header.Get("Accept-Ranges") != "bytes" {
		t.Errorf("HEAD: %s %v", resp.Status, resp.Header)
	}
	resp, body = do(t, "GET", base+"/vmlinuz", "Range", "bytes=1000-1999")
	if resp.StatusCode != 206 || !bytes.Equal(body, kernel[1000:2000]) {
		t.Errorf("range: %s, %d bytes", resp.Status, len(body))
	}
	etag := resp.Header.Get("ETag")
	if resp, _ = do(t, "GET", base+"/vmlinuz", "If-None-Match", etag); resp.StatusCode != 304 {
		t.Errorf("If-None-Match: %s", resp.Status)
	}
	if resp, _ = do(t, "GET", base+"/vmlinuz", "Range", "bytes=99999999-"); resp.StatusCode != 416 {
		t.Errorf("range past the end: %s", resp.Status)
	}
	for path, want := range map[string]int{
		"//boot//" + image.manifest.Infohash.String() + "/boot//grubx64.efi": 200,
		"/boot.ipxe": 200, "/grub/grub.cfg": 200, "/shimx64.efi": 200, "/settings.toml": 200, "/": 200, "/status": 200,
		"/runes.tar": 404, "/nonsense": 404, "/boot/../boot.ipxe": 404, "/%2e%2e/boot.ipxe": 404, "/metrics": 404,
	} {
		if resp, _ := do(t, "GET", server.URL+path); resp.StatusCode != want {
			t.Errorf("GET %s: %s, want %d", path, resp.Status, want)
		}
	}
	layer := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(layer, []byte("a live layer"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Live = func(digest string) (*os.File, error) {
		if digest != "d1" {
			return nil, os.ErrNotExist
		}
		return os.Open(layer)
	}
	override := []byte("signed")
	cfg.LiveOverride = func() []byte { return override }
	server = testServer(t, cfg)
	for _, want := range []int{200, 404} {
		if resp, body := do(t, "GET", server.URL+"/live.json"); resp.StatusCode != want || want == 200 && string(body) != "signed" {
			t.Errorf("live.json: %s, %q", resp.Status, body)
		}
		override = nil
	}
	if resp, body := do(t, "GET", server.URL+"/boot/live/d1", "Range", "bytes=2-"); resp.StatusCode != 206 || string(body) != "live layer" {
		t.Errorf("live layer: %s, %q", resp.Status, body)
	}
	for _, path := range []string{"/boot/live/d2", "/boot/live/", "/boot/live", "/boot/live/d1/d1", "/live/d1", "/boot/x/live/d1"} {
		if resp, _ := do(t, "GET", server.URL+path); resp.StatusCode != 404 {
			t.Errorf("GET %s: %s", path, resp.Status)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		if resp, _ := do(t, method, base+"/vmlinuz"); resp.StatusCode != 405 || resp.Header.Get("Allow") == "" {
			t.Errorf("%s: %s", method, resp.Status)
		}
	}
}

func TestHTTPFailures(t *testing.T) {
	cfg := testConfig(t)
	image := cfg.Image.(*memImage)
	server := testServer(t, cfg)
	base := server.URL + "/boot/" + image.manifest.Infohash.String()

	delete(image.files, "vmlinuz")
	if resp, _ := do(t, "GET", base+"/vmlinuz"); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "" {
		t.Errorf("a file that cannot be opened: %s", resp.Status)
	}
	image.broken["initramfs.img"] = errMedium
	resp, err := http.Get(base + "/initramfs.img")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Errorf("half a file looked like a whole one of %d bytes", n)
	}
}

func TestStatusPageAndMetrics(t *testing.T) {
	cfg := testConfig(t)
	cfg.Metrics = new(metrics.Set)
	cfg.Status = func() any { return map[string]string{"<b>role</b>": "first node"} }
	server := testServer(t, cfg)
	newHost(t, cfg) // a second host in the process takes the same counters

	_, body := do(t, "GET", server.URL+"/status")
	var status map[string]string
	if err := json.Unmarshal(body, &status); err != nil || status["<b>role</b>"] != "first node" {
		t.Errorf("status %s: %v", body, err)
	}
	_, body = do(t, "GET", server.URL+"/")
	for _, want := range []string{"Test Linux 1", "http-equiv=\"refresh\"", "None has asked yet", "first node"} {
		if !strings.Contains(string(body), want) {
			t.Errorf("page lacks %q:\n%s", want, body)
		}
	}
	if strings.Contains(string(body), "<b>role") {
		t.Error("the page passes markup through")
	}
	do(t, "GET", server.URL+"/boot.ipxe")
	_, body = do(t, "GET", server.URL+"/metrics")
	if want := `viver_boothost_transfers_total{result="done",service="http"} 1`; !strings.Contains(string(body), want) {
		t.Errorf("metrics lack %s:\n%s", want, body)
	}
}

// The page shows each machine with what is known of it, to its end.
func TestPageShowsMachines(t *testing.T) {
	h := newHost(t, testConfig(t))
	server := httptest.NewServer(serverOf(t, h))
	t.Cleanup(server.Close)
	h.machines.noteRequest(new(dhcpv4.DHCPv4), dhcp.Decision{Client: dhcp.Client{Kind: dhcp.PXE, MAC: ether.MAC{2, 0, 0, 0, 0, 1}}, Reason: "<not> answered"})
	reply := &dhcpv4.DHCPv4{YourIPAddr: net.IPv4(10, 77, 0, 9)}
	h.machines.noteRequest(new(dhcpv4.DHCPv4), dhcp.Decision{Client: dhcp.Client{Kind: dhcp.IPXE, MAC: ether.MAC{2, 0, 0, 0, 0, 2}}, Reply: reply})
	_, body := do(t, "GET", server.URL+"/")
	for _, want := range []string{
		"<td><td><code>02:00:00:00:00:01</code><td>", "&lt;not&gt; answered",
		"<td>10.77.0.9<td><code>02:00:00:00:00:02</code><td>", h.machines.list()[1].Seen.Format("<td>15:04:05</tr>"), "</html>",
	} {
		if !strings.Contains(string(body), want) {
			t.Errorf("page lacks %q:\n%s", want, body)
		}
	}
}

func TestStatusWithoutANode(t *testing.T) {
	server := testServer(t, testConfig(t))
	_, body := do(t, "GET", server.URL+"/status")
	var status Status
	if err := json.Unmarshal(body, &status); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(status.Mode, status.Image, status.Address); got != string(dhcp.Full)+"test"+selfIP+"/16" {
		t.Error(got)
	}
}
