package boothost

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/bootfiles"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/manifest"
)

const selfIP = "10.77.3.9"

// memImage is an image in memory, whose files can be made to fail.
type memImage struct {
	manifest *manifest.Manifest
	files    map[string][]byte
	broken   map[string]error // by name: fails half way
}

func (m *memImage) Manifest() *manifest.Manifest { return m.manifest }
func (m *memImage) Metainfo() []byte             { return []byte("d4:infod4:name4:teste") }

// Signed returns a manifest that no encoder would write like that.
func (m *memImage) Signed() (text, signature []byte) {
	return []byte("{ \"name\":\"test\" }"), []byte("untrusted comment: a signature\n")
}

func (m *memImage) Open(_ context.Context, name string) (io.ReadSeekCloser, error) {
	data, ok := m.files[name]
	if !ok {
		return nil, os.ErrNotExist
	}
	r := nopCloser{bytes.NewReader(data)}
	if err := m.broken[name]; err != nil {
		return &brokenFile{nopCloser: r, left: len(data) / 2, err: err}, nil
	}
	return r, nil
}

type brokenFile struct {
	nopCloser
	left int
	err  error
}

func (b *brokenFile) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, b.err
	}
	n, err := b.nopCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func testImage(t testing.TB) *memImage {
	t.Helper()
	return imageOf(map[string]int{
		manifest.Root:        1 << 20,
		manifest.Kernel:      3<<20 + 17,
		manifest.Initramfs:   5 << 20, // a multiple of every block size
		"boot/undionly.kpxe": 70000,
		"boot/shimx64.efi":   512,
		"boot/grubx64.efi":   100001,
		manifest.Drivers:     1<<20 + 5,
	})
}

// imageOf makes an image of random files of these sizes in bytes, the same ones
// each time.
func imageOf(sizes map[string]int) *memImage {
	rng := rand.NewChaCha8([32]byte{1})
	m := &memImage{files: map[string][]byte{}, broken: map[string]error{}}
	m.manifest = &manifest.Manifest{
		Format: manifest.Format, Name: "test", Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Distribution: "Test Linux 1", KernelRelease: "6.1.0-1-amd64", Arch: "amd64", PieceLength: 1 << 17,
		Infohash: manifest.Infohash{0xca, 0xfe},
	}
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		data := make([]byte, sizes[name])
		rng.Read(data)
		m.files[name] = data
		m.manifest.Files = append(m.manifest.Files, manifest.FileInfo{Name: name, Size: int64(len(data)), SHA256: sha256.Sum256(data)})
	}
	return m
}

// write makes the image's files in a directory.
func (m *memImage) write(t testing.TB, dir string) {
	t.Helper()
	for name, data := range m.files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func testConfig(t testing.TB) Config {
	return Config{
		Interface: net.Interface{Index: 1, Name: "boot", HardwareAddr: net.HardwareAddr{0x52, 0x54, 0, 0xff, 0, 1}},
		Address:   netip.MustParsePrefix(selfIP + "/16"),
		Mode:      dhcp.Full,
		Image:     testImage(t),
		Settings:  []byte("# settings\n"),
		Log:       slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

func newHost(t testing.TB, cfg Config) *Host {
	t.Helper()
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestScripts holds what iPXE and GRUB are told. Run with VIVER_GOLDEN=1 to
// write the files again.
func TestScripts(t *testing.T) {
	cfg := testConfig(t)
	cfg.KernelArgs = []string{"console=ttyS0", "viver.debug"}
	withNICs(t, cfg.Image.(*memImage))
	h := newHost(t, cfg)
	for name, ask := range map[string]string{
		"boot.ipxe":    "boot.ipxe",
		"grub.cfg":     "grub/grub.cfg",
		"grub.cfg-mac": "/grub//grub.cfg-01-52-54-00-12-34-56",
	} {
		r, ok := h.find(ask, netip.Addr{}, false)
		if !ok {
			t.Fatalf("%s is not served", ask)
		}
		f, err := r.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(f)
		golden := filepath.Join("testdata", name+".golden")
		if os.Getenv("VIVER_GOLDEN") != "" {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s changed:\n%s", name, got)
		}
	}
}

func TestCatalogKnowsOnlyNames(t *testing.T) {
	h := newHost(t, testConfig(t))
	hash := h.catalog.image.Infohash.String()
	for name, want := range map[string]bool{
		"undionly.kpxe":                                true,
		"//shimx64.efi":                                true,
		"/boot/" + hash + "//boot/grubx64.efi":         true,
		"boot/" + hash + "/vmlinuz":                    true,
		"boot/" + hash + "/root.squashfs":              true,
		"boot/" + hash + "/manifest.json":              true,
		"boot/" + hash + "/manifest.json.minisig":      true,
		"boot/" + hash + "/image.torrent":              true,
		"settings.toml":                                true,
		"runes.tar":                                    false, // none configured
		"vmlinuz":                                      false,
		"root.squashfs":                                false,
		"boot/" + strings.Repeat("0", 40) + "/vmlinuz": false,
		"boot/" + hash + "/../../etc/passwd":           false,
		"boot/" + hash + "/./vmlinuz":                  false,
		"../../etc/passwd":                             false,
		"/etc/passwd":                                  false,
		`..\..\boot.ini`:                               false,
		"undionly.kpxe\x00.txt":                        false,
		"revocations_sbat.efi":                         false,
		"autoexec.ipxe":                                false, // iPXE asks for one, and then by DHCP for our script
		"shim_certificate_0.efi":                       false,
		"grub/grub.cfg-01-52-54-00-12-34":              false,
		"grub/grub.cfg-01-../../x":                     false,
		"grub/x86_64-efi/command.lst":                  false,
		"":                                             false,
		strings.Repeat("/", 5000):                      false,
	} {
		if _, ok := h.find(name, netip.Addr{}, false); ok != want {
			t.Errorf("%.60q found: %v", name, ok)
		}
	}
	if r, _ := h.find("boot/"+hash+"/root.squashfs", netip.Addr{}, false); r.tftp {
		t.Error("the root file system is served over TFTP")
	}
}

func FuzzCatalog(f *testing.F) {
	h := newHost(f, testConfig(f))
	for name := range h.catalog.entries {
		f.Add(name)
	}
	f.Add("grub/grub.cfg-01-52-54-00-12-34-56")
	f.Add("/../boot.ipxe")
	f.Fuzz(func(t *testing.T, name string) {
		r, ok := h.find(name, netip.Addr{}, false)
		if !ok {
			return
		}
		if _, listed := h.catalog.entries[r.name]; !listed && r.name != grubName && !strings.HasPrefix(r.name, grubPrefix) {
			t.Fatalf("%q gave %q", name, r.name)
		}
		if strings.Contains(r.name, "..") {
			t.Fatalf("%q gave %q", name, r.name)
		}
	})
}

func TestProgramsFollowTheImage(t *testing.T) {
	cfg := testConfig(t)
	h := newHost(t, cfg)
	got := h.dhcp.Programs
	if got[dhcp.BIOS].TFTP != "undionly.kpxe" || got[dhcp.BIOS].URL != "" || got[dhcp.X64].TFTP != "shimx64.efi" ||
		got[dhcp.X64].URL != "http://10.77.3.9/boot/cafe000000000000000000000000000000000000/boot/shimx64.efi" {
		t.Errorf("programs: %v", got)
	}
	if _, ok := got[dhcp.ARM64]; ok {
		t.Error("an amd64 image boots arm64")
	}
	for first, files := range map[string][]string{
		bootfiles.Shim:     {bootfiles.Shim, bootfiles.GRUB},
		bootfiles.IPXE:     {bootfiles.Shim, bootfiles.GRUB, bootfiles.IPXE},
		bootfiles.IPXEShim: {bootfiles.Shim, bootfiles.GRUB, bootfiles.IPXE, bootfiles.IPXEShim},
	} {
		sizes := map[string]int{manifest.Kernel: 1, manifest.Initramfs: 1}
		for _, name := range files {
			sizes[manifest.BootDir+"/"+name] = 1
		}
		cfg.Image = imageOf(sizes)
		h := newHost(t, cfg)
		if p := h.dhcp.Programs[dhcp.X64]; p.TFTP != first || !strings.HasSuffix(p.URL, "/boot/"+first) {
			t.Errorf("UEFI machines are told to load %v of %v", p, files)
		}
		for _, name := range files { // what the first looks for lies beside it
			for _, asked := range []string{name, h.catalog.imagePath(manifest.BootDir + "/" + name)} {
				if _, ok := h.find(asked, netip.Addr{}, false); !ok {
					t.Errorf("%s is not served", asked)
				}
			}
		}
	}
	cfg.Image = imageOf(map[string]int{manifest.Kernel: 1, manifest.Initramfs: 1, "boot/undionly.kpxe": 1}) // no shim, no GRUB
	h = newHost(t, cfg)
	if bytes.Contains(h.catalog.plan.script, []byte("shim ")) {
		t.Errorf("iPXE is sent to a shim that the image does not have:\n%s", h.catalog.plan.script)
	}
	if p, ok := h.dhcp.Programs[dhcp.X64]; !ok || p != (dhcp.Program{}) {
		t.Errorf("without a shim: %v %v", p, ok)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"no image":        func(c *Config) { c.Image = nil },
		"mode":            func(c *Config) { c.Mode = "" },
		"kernel argument": func(c *Config) { c.KernelArgs = []string{"a=b c"} },
		"substitution":    func(c *Config) { c.KernelArgs = []string{"${x}"} },
		"empty argument":  func(c *Config) { c.KernelArgs = []string{""} },
		"pool":            func(c *Config) { c.Pool = netip.MustParsePrefix("10.78.0.0/16") },
		"interface":       func(c *Config) { c.Interface.HardwareAddr = nil },
		"address":         func(c *Config) { c.Address = netip.Prefix{} },
		"no kernel":       func(c *Config) { c.Image = imageOf(map[string]int{manifest.Root: 1}) },
		"own address":     func(c *Config) { c.Address = netip.MustParsePrefix("fe80::1/64") },
	} {
		cfg := testConfig(t)
		spoil(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

func TestServicesOfAMode(t *testing.T) {
	for mode, want := range map[dhcp.Mode]string{
		dhcp.Full:     "http router-advertisement tftp pxe dhcp",
		dhcp.Proxy:    "http router-advertisement tftp pxe dhcp",
		dhcp.External: "http router-advertisement tftp",
	} {
		cfg := testConfig(t)
		cfg.Mode = mode
		var names []string
		h := newHost(t, cfg)
		for _, s := range append(h.fileServices(), h.netbootServices()...) {
			names = append(names, s.name())
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s", mode, got)
		}
	}
}

func TestMachinesAreBounded(t *testing.T) {
	m := newMachines(time.Now)
	decision := func(n int) dhcp.Decision {
		return dhcp.Decision{Client: dhcp.Client{Kind: dhcp.PXE, MAC: ether.MAC{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)}}}
	}
	for n := range maxMachines + 10 {
		if !m.noteRequest(new(dhcpv4.DHCPv4), decision(n)) {
			t.Fatal("a new machine is not reported as new")
		}
	}
	if m.noteRequest(new(dhcpv4.DHCPv4), decision(maxMachines)) {
		t.Error("a known machine is reported as new")
	}
	if got := m.list(); len(got) != maxMachines || got[0].MAC[5] != 10 {
		t.Errorf("%d machines, first %s", len(got), got[0].MAC)
	}
}

var errMedium = errors.New("medium pulled out")
