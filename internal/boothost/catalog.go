package boothost

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path"
	"strings"

	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/manifest"
)

// Names that this package makes itself.
const (
	scriptName   = "boot.ipxe"
	grubName     = "grub/grub.cfg"
	grubPrefix   = "grub/grub.cfg-01-" // followed by the MAC, as PXE programs ask
	settingsName = "settings.toml"
	runesName    = "runes.tar"
	liveDir      = "boot/live" // followed by the digest of a live layer
	liveName     = "live.json"
)

// Boot programs for UEFI on amd64, by their names in an image (bootfiles.Names): shim,
// which starts GRUB, and in images of some owners an iPXE, behind a shim or not.
const (
	shim     = "shimx64.efi"
	ipxeShim = "ipxe-shimx64.efi"
	ipxe     = "ipxe.efi"
)

// resource is one thing that can be fetched.
type resource struct {
	name string
	size int64
	// etag names the bytes: a strong HTTP entity tag, or empty.
	etag string
	open func(context.Context) (io.ReadSeekCloser, error)
	// tftp says whether it is small enough, and of use, over TFTP.
	tftp bool
}

// catalog is every name there is, for TFTP and HTTP alike.
type catalog struct {
	host    string // address, and port unless it is HTTP's own
	image   *manifest.Manifest
	plan    plan
	entries map[string]resource
	live    func(digest string) (*os.File, error)
	// override is Config.LiveOverride.
	override func() []byte
}

func newCatalog(cfg *Config) (*catalog, error) {
	m := cfg.Image.Manifest()
	for _, name := range []string{manifest.Kernel, manifest.Initramfs} {
		if _, _, ok := m.Lookup(name); !ok {
			return nil, fmt.Errorf("image %s has no %s", m.Name, name)
		}
	}
	plan, err := newPlan(cfg, m)
	if err != nil {
		return nil, err
	}
	c := &catalog{host: cfg.host(), image: m, plan: plan, entries: make(map[string]resource), live: cfg.Live, override: cfg.LiveOverride}
	for _, f := range m.Files {
		c.add(c.imagePath(f.Name), payloadFile(cfg.Image, f))
		if path.Dir(f.Name) == manifest.BootDir {
			c.add(path.Base(f.Name), payloadFile(cfg.Image, f)) // the short name that DHCP packets carry
		}
	}
	if f, _, ok := m.Lookup(manifest.NICs); ok {
		first, _, _ := m.Lookup(manifest.Initramfs)
		whole := joined(payloadFile(cfg.Image, first), payloadFile(cfg.Image, f))
		c.add(c.imagePath(wholeName), whole)
		c.add(c.imagePath(uefiName), whole) // by HTTP, forUEFI narrows it
	}
	// Encoding the manifest again could give other bytes than were signed.
	text, signature := cfg.Image.Signed()
	c.add(c.imagePath(manifest.File), text)
	c.add(c.imagePath(manifest.Signature), signature)
	c.add(c.imagePath(manifest.Metainfo), cfg.Image.Metainfo())
	c.add(scriptName, plan.script)
	advice, err := externals(cfg.Address.Addr().String(), c.url(scriptName), c.programs())
	if err != nil {
		return nil, err
	}
	for name, text := range advice {
		c.add(name, text)
	}
	if cfg.Settings != nil {
		c.add(settingsName, cfg.Settings)
	}
	if cfg.Runes != nil {
		c.add(runesName, cfg.Runes)
	}
	return c, nil
}

// payloadFile is a file of the image.
func payloadFile(image Image, f manifest.FileInfo) resource {
	return resource{
		size: f.Size,
		etag: fmt.Sprintf("%q", f.SHA256),
		tftp: f.Name != manifest.Root, // hundreds of megabytes would use a transfer for hours
		open: func(ctx context.Context) (io.ReadSeekCloser, error) { return image.Open(ctx, f.Name) },
	}
}

// add enters a resource or plain bytes under a name.
func (c *catalog) add(name string, what any) {
	r, ok := what.(resource)
	if !ok {
		r = memory(what.([]byte))
	}
	r.name = name
	c.entries[name] = r
}

func memory(data []byte) resource {
	return resource{
		size: int64(len(data)),
		tftp: true,
		open: func(context.Context) (io.ReadSeekCloser, error) { return nopCloser{bytes.NewReader(data)}, nil },
	}
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

// imagePath is where a file of the image is found. The infohash in it makes
// the name stand for the same bytes for ever.
func (c *catalog) imagePath(name string) string {
	return path.Join("boot", c.image.Infohash.String(), name)
}

func (c *catalog) url(name string) string { return fmt.Sprintf("http://%s/%s", c.host, name) }

// find returns the resource that a client asked for. Doubled and leading
// slashes are allowed, because shim and some firmware send them; all else must be
// exactly the name of an entry. GRUB's configuration is made for each client:
// sources returns where it shall fetch from.
func (c *catalog) find(asked string, sources func() []netip.AddrPort) (resource, bool) {
	name := squeeze(asked)
	if r, ok := c.entries[name]; ok {
		return r, true
	}
	if r, ok := c.liveLayer(name); ok {
		return r, true
	}
	if mac, ok := grubConfig(name); ok {
		r := memory(c.plan.grubFor(mac, sources()))
		r.name = name
		return r, true
	}
	return resource{}, false
}

// liveLayer returns the live layer of that name, as long as this node has it, or what
// points to the one in use.
func (c *catalog) liveLayer(name string) (resource, bool) {
	if name == liveName && c.override != nil {
		text := c.override()
		r := memory(text)
		r.name = name
		return r, text != nil
	}
	dir, digest := path.Split(name)
	if c.live == nil || path.Clean(dir) != liveDir {
		return resource{}, false
	}
	f, err := c.live(digest)
	if err != nil {
		return resource{}, false
	}
	defer f.Close() // it was read only
	fi, err := f.Stat()
	if err != nil {
		return resource{}, false
	}
	return resource{
		name: name,
		size: fi.Size(),
		etag: fmt.Sprintf("%q", digest),
		open: func(context.Context) (io.ReadSeekCloser, error) { return c.live(digest) },
	}, true
}

// grubConfig reports whether a name is that of GRUB's configuration, and the
// MAC address of the machine that it is for, as it is to be written there.
func grubConfig(name string) (mac string, ok bool) {
	if name == grubName {
		return grubMAC, true
	}
	text, ok := strings.CutPrefix(name, grubPrefix)
	if !ok {
		return "", false
	}
	parsed, err := ether.ParseMAC(text)
	return parsed.String(), err == nil
}

// squeeze drops empty elements of a slash-separated name.
func squeeze(name string) string {
	return strings.Join(strings.FieldsFunc(name, func(r rune) bool { return r == '/' }), "/")
}

// programs finds the boot program of each platform the image can boot. A
// platform without one is still listed: iPXE in ROM needs none.
func (c *catalog) programs() map[dhcp.Platform]dhcp.Program {
	files := map[dhcp.Platform]string{}
	switch c.image.Arch {
	case "arm64":
		files[dhcp.ARM64] = "shimaa64.efi"
	default:
		files[dhcp.BIOS] = "undionly.kpxe"
		files[dhcp.X64] = c.firstOf(ipxeShim, ipxe, shim)
	}
	programs := make(map[dhcp.Platform]dhcp.Program, len(files))
	for platform, file := range files {
		var p dhcp.Program
		if _, ok := c.entries[file]; ok {
			p.TFTP = file
			if platform != dhcp.BIOS {
				p.URL = c.url(c.imagePath(path.Join(manifest.BootDir, file)))
			}
		}
		programs[platform] = p
	}
	return programs
}

// firstOf returns the first of these boot programs that the image has, or the last. A
// machine tries no other, so what an owner has chosen comes before what VIVER brings.
func (c *catalog) firstOf(files ...string) string {
	for _, file := range files {
		if _, ok := c.entries[file]; ok {
			return file
		}
	}
	return files[len(files)-1]
}
