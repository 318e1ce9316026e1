package boothost

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"viver.lan/internal/manifest"
)

// Files of the network's other image are served under its infohash; the names that belong
// to no image are those of the one that machines boot.
func TestTwoImagesAreServed(t *testing.T) {
	cfg := testConfig(t)
	other := imageOf(map[string]int{manifest.Root: 1 << 10, manifest.Kernel: 2000, manifest.Initramfs: 3000, "boot/shimx64.efi": 700})
	other.manifest.Infohash = manifest.Infohash{0xbe, 0xef}
	cfg.Also = []Image{other}
	server := testServer(t, cfg)
	get := func(path string) []byte {
		t.Helper()
		resp, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s, %v", path, resp.Status, err)
		}
		return body
	}
	offered := cfg.Image.(*memImage)
	for _, image := range []*memImage{offered, other} {
		base := "/boot/" + image.manifest.Infohash.String() + "/"
		if !bytes.Equal(get(base+manifest.Kernel), image.files[manifest.Kernel]) {
			t.Errorf("%s: another kernel", base)
		}
		text, _ := image.Signed()
		if !bytes.Equal(get(base+manifest.File), text) {
			t.Errorf("%s: another manifest", base)
		}
	}
	if !bytes.Equal(get("/shimx64.efi"), offered.files["boot/shimx64.efi"]) {
		t.Error("the boot program is not that of the image that machines boot")
	}
	if script := get("/boot.ipxe"); !bytes.Contains(script, []byte(offered.manifest.Infohash.String())) || bytes.Contains(script, []byte(other.manifest.Infohash.String())) {
		t.Errorf("the script names another image:\n%s", script)
	}
}
