package boothost

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"

	"viver.lan/internal/manifest"
	"viver.lan/internal/nics"
)

// withNICs adds drivers of network cards to an image: a table and three archives.
func withNICs(t testing.TB, image *memImage) (head int) {
	t.Helper()
	table := nics.Table{
		Covered: []nics.Card{{Vendor: 0x1af4, Device: 0x1000}},
		Archives: []nics.Archive{
			{Size: 1000, Modules: []string{"e1000"}, Cards: []nics.Card{{Vendor: 0x8086, Device: 0x100e}}},
			{Size: 70000, Modules: []string{"r8152"}},
			{Size: 0xb44, Modules: []string{"b44"}, Cards: []nics.Card{{Vendor: 0x14e4, Device: 0x170c}}, NoUEFI: true},
			{Size: 300, Modules: []string{"ptp"}, Cards: []nics.Card{{Vendor: 0x8086, Device: 0x100e}, {Vendor: 0x8086, Device: 0x1521}}},
		},
	}
	text, err := table.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := cpio.Newc.Writer(&b)
	if err := cpio.WriteRecords(w, []cpio.Record{cpio.StaticFile(nics.TableFile, string(text), 0o644)}); err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	head = b.Len()
	b.Write(image.files[manifest.Initramfs][:71300+0xb44]) // any bytes
	setFile(image, manifest.NICs, b.Bytes())
	return head
}

// setFile gives an image a file with these bytes.
func setFile(image *memImage, name string, data []byte) {
	image.files[name] = data
	f := manifest.FileInfo{Name: name, Size: int64(len(data)), SHA256: sha256.Sum256(data)}
	for i := range image.manifest.Files {
		if image.manifest.Files[i].Name == name {
			image.manifest.Files[i] = f
			return
		}
	}
	image.manifest.Files = append(image.manifest.Files, f)
}

// A machine that names its card gets what that needs, and all others everything.
func TestDriversOfACard(t *testing.T) {
	cfg := testConfig(t)
	image := cfg.Image.(*memImage)
	head := withNICs(t, image)
	all := image.files[manifest.NICs]
	server := testServer(t, cfg)
	url := server.URL + "/boot/" + image.manifest.Infohash.String() + "/" + manifest.NICs
	etags := map[string]string{}
	for query, want := range map[string][]byte{
		"": all, "?": all, "?stay": all,
		"?card=018086100e&pci=100e8086&":              bytes.Join([][]byte{all[:head+1000], all[head+71000+0xb44:]}, nil),
		"?card=0180861521&pci=15218086&stay":          bytes.Join([][]byte{all[:head], all[head+71000+0xb44:]}, nil),
		"?card=011af41000&pci=10001af4&":              all[:head],
		"?card=01ffff0000&pci=0000ffff":               all, // unknown
		"?card=018086100e&pci=":                       all, // an iPXE that cannot read PCI
		"?card=018086100e&pci=15218086":               all, // a ROM that is wrong
		"?card=0a8086100e&pci=100e8086":               all, // not on PCI
		"?card=&pci=":                                 all,
		"?card=%zz&pci=100e8086":                      all,
		"?card=" + strings.Repeat("01", 2000):         all,
		"?card=018086100e&card=0180861521&pci=ffffff": all,
	} {
		resp, body := do(t, "GET", url+query)
		if resp.StatusCode != http.StatusOK || !bytes.Equal(body, want) {
			t.Errorf("%.60q: %s, %d bytes, want %d", query, resp.Status, len(body), len(want))
		}
		if other, ok := etags[resp.Header.Get("ETag")]; ok && other != string(body) {
			t.Errorf("%.60q: other bytes have the tag %s", query, resp.Header.Get("ETag"))
		}
		etags[resp.Header.Get("ETag")] = string(body)
	}
	// In parts, as a client that goes on may ask.
	req := httptest.NewRequest(http.MethodGet, "/boot/"+image.manifest.Infohash.String()+"/"+manifest.NICs+"?card=018086100e&pci=100e8086", nil)
	req.Header.Set("Range", "bytes=-301")
	w := httptest.NewRecorder()
	newHTTPServer(newHost(t, cfg)).ServeHTTP(w, req)
	if want := append([]byte{all[head+999]}, all[head+71000+0xb44:]...); w.Code != http.StatusPartialContent || !bytes.Equal(w.Body.Bytes(), want) {
		t.Errorf("the last bytes: %d, %d bytes, want %d", w.Code, w.Body.Len(), len(want))
	}
}

// A table that is damaged costs a machine no driver.
func TestDamagedTable(t *testing.T) {
	for name, spoil := range map[string]func(data []byte, head int) []byte{
		"no archive": func(data []byte, _ int) []byte { data[0] = 'x'; return data },
		"no table": func(data []byte, _ int) []byte {
			return bytes.Replace(data, []byte("nics.json"), []byte("nics.toml"), 1)
		},
		"wrong sizes":    func(data []byte, head int) []byte { return data[:head] },
		"only the start": func(data []byte, head int) []byte { return data[:head/2] },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			image := cfg.Image.(*memImage)
			head := withNICs(t, image)
			setFile(image, manifest.NICs, spoil(bytes.Clone(image.files[manifest.NICs]), head))
			url := testServer(t, cfg).URL + "/boot/" + image.manifest.Infohash.String() + "/" + manifest.NICs + "?card=018086100e&pci=100e8086"
			if resp, body := do(t, "GET", url); resp.StatusCode != http.StatusOK || !bytes.Equal(body, image.files[manifest.NICs]) {
				t.Errorf("%s, %d bytes of %d", resp.Status, len(body), len(image.files[manifest.NICs]))
			}
		})
	}
}

// GRUB gets initramfs and drivers as one file, without those of cards that have no UEFI
// to boot by, unless it is not known which these are.
func TestInitramfsForUEFI(t *testing.T) {
	for name, damaged := range map[string]bool{"": false, "damaged": true} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			image := cfg.Image.(*memImage)
			head := withNICs(t, image)
			all := image.files[manifest.NICs]
			want := slices.Concat(image.files[manifest.Initramfs], all[:head+71000], all[head+71000+0xb44:])
			if damaged {
				all = bytes.Clone(all)
				all[0] = 'x'
				setFile(image, manifest.NICs, all)
				want = slices.Concat(image.files[manifest.Initramfs], all)
			}
			server := testServer(t, cfg)
			base := server.URL + "/boot/" + image.manifest.Infohash.String() + "/"
			whole, _ := do(t, "GET", base+wholeName)
			resp, body := do(t, "GET", base+uefiName)
			if resp.StatusCode != http.StatusOK || !bytes.Equal(body, want) {
				t.Errorf("%s, %d bytes, want %d", resp.Status, len(body), len(want))
			}
			if same := resp.Header.Get("ETag") == whole.Header.Get("ETag"); same != damaged {
				t.Errorf("the tag %s for these bytes and for all", resp.Header.Get("ETag"))
			}
			if _, config := do(t, "GET", server.URL+"/"+grubName); !bytes.Contains(config, []byte("/"+uefiName+";")) {
				t.Errorf("GRUB is not told of it:\n%s", config)
			}
		})
	}
}

// That file is to be had by TFTP, too, with all drivers.
func TestWholeInitramfs(t *testing.T) {
	cfg := testConfig(t)
	image := cfg.Image.(*memImage)
	withNICs(t, image)
	h := newHost(t, cfg)
	r, ok := h.find("boot/"+image.manifest.Infohash.String()+"/"+uefiName, netip.Addr{}, false)
	if !ok || !r.tftp {
		t.Fatalf("%s: found %v, by TFTP %v", uefiName, ok, r.tftp)
	}
	want := append(bytes.Clone(image.files[manifest.Initramfs]), image.files[manifest.NICs]...)
	file, err := r.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if got, err := io.ReadAll(file); err != nil || !bytes.Equal(got, want) || r.size != int64(len(want)) {
		t.Errorf("%d bytes, %v, said to be %d; want %d", len(got), err, r.size, len(want))
	}
	if size, err := file.Seek(0, io.SeekEnd); err != nil || size != r.size {
		t.Errorf("the end is at %d, %v", size, err)
	}
	if _, err := file.Seek(-r.size-1, io.SeekCurrent); err == nil {
		t.Error("a place before the beginning is taken")
	}
	// A file that became shorter is no shorter initramfs.
	image.files[manifest.Initramfs] = image.files[manifest.Initramfs][:100]
	short, err := r.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	if got, err := io.ReadAll(short); err == nil {
		t.Errorf("%d bytes look whole", len(got))
	}
	delete(image.files, manifest.NICs)
	if _, err := r.open(t.Context()); err == nil {
		t.Error("half of the two files was opened")
	}
}

// An image of an earlier version has all drivers in its initramfs.
func TestScriptsOfAnOlderImage(t *testing.T) {
	h := newHost(t, testConfig(t))
	for _, name := range []string{scriptName, grubName} {
		r, _ := h.find(name, netip.Addr{}, false)
		f, err := r.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(f)
		if bytes.Contains(text, []byte(manifest.NICs)) || bytes.Contains(text, []byte(wholeName)) || bytes.Contains(text, []byte(uefiName)) || !bytes.Contains(text, []byte(manifest.Initramfs)) {
			t.Errorf("%s:\n%s", name, text)
		}
	}
	if _, ok := h.find(h.catalog.imagePath(wholeName), netip.Addr{}, false); ok {
		t.Error("what it lacks is served")
	}
}

// Who names a card on the kernel command line may mean another one than iPXE knows.
func TestCardThatIsChosen(t *testing.T) {
	for arg, want := range map[string]bool{
		"quiet": true, "ipv6.disable=1": true, "viver.network.dns=1.1.1.1": true,
		"ip=eth1:dhcp": false, "BOOTIF=01-52-54-00-12-34-56": false, "viver.network.interface=eth1": false,
	} {
		cfg := testConfig(t)
		withNICs(t, cfg.Image.(*memImage))
		cfg.KernelArgs = []string{"console=ttyS0", arg}
		plan := newHost(t, cfg).catalog.plan
		if got := strings.Contains(string(plan.script), cardKey+"="); got != want {
			t.Errorf("with %s iPXE tells its card: %v, want %v", arg, got, want)
		}
		if got := strings.Contains(string(plan.grub), uefiName); got != want {
			t.Errorf("with %s GRUB gets no drivers of cards without UEFI: %v, want %v", arg, got, want)
		}
	}
}
