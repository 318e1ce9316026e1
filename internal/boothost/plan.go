package boothost

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	template "github.com/DataDog/datadog-agent/pkg/template/text"

	"viver.lan/internal/cmdline"
	"viver.lan/internal/manifest"
)

//go:embed assets
var assets embed.FS

// MAC of the booting machine as each boot program spells it, in the two forms
// that BOOTIF has: PXELINUX's and plain.
const (
	ipxeMAC = "01-${netX/mac:hexhyp}"
	grubMAC = "$net_default_mac"
)

// grubFrom is replaced by the devices that a machine fetches from.
const grubFrom = "$sources"

// maxGrubFrom is the length of the longest replacement.
const maxGrubFrom = len("http,255.255.255.255:65535 http,255.255.255.255:65535")

// plan is what every machine boots, as scripts.
type plan struct {
	script []byte // iPXE's
	grub   []byte // GRUB's, with grubMAC and grubFrom in it
}

func newPlan(cfg *Config, m *manifest.Manifest) (plan, error) {
	for _, arg := range cfg.KernelArgs {
		if !cmdline.Plain(arg) || arg == "" {
			return plan{}, fmt.Errorf("kernel argument %q: only letters, digits and _.,:=/@+%%- survive both boot loaders' scripts", arg)
		}
	}
	args := []string{"viver.host=" + cfg.host()}
	if cfg.Origin.IsValid() {
		args = append(args, "viver.origin="+cfg.Origin.String())
	}
	args = append(args, "viver.image="+m.Infohash.String(), cmdline.NoSelfTests)
	args = append(args, cfg.KernelArgs...)
	base := "/boot/" + m.Infohash.String() + "/"
	whole := manifest.Initramfs
	var nics, card string
	if _, _, ok := m.Lookup(manifest.NICs); ok {
		whole, nics = wholeName, base+manifest.NICs
		if !choosesCard(cfg.KernelArgs) {
			whole, card = uefiName, cardQuery
		}
	}
	var shimPath string
	if _, _, ok := m.Lookup(path.Join(manifest.BootDir, shim)); ok {
		shimPath = base + path.Join(manifest.BootDir, shim)
	}
	values := scriptValues{
		Label:     cmdline.MadePlain(m.Name),
		Host:      cfg.host(),
		Kernel:    base + manifest.Kernel,
		Initramfs: base + manifest.Initramfs,
		NICs:      nics,
		Card:      card,
		Whole:     base + whole,
		Shim:      shimPath,
		From:      grubFrom,
		Args:      strings.Join(args, " ") + " BOOTIF=",
	}
	templates, err := template.ParseFS(assets, "assets/*.tmpl")
	if err != nil {
		return plan{}, err
	}
	var script, grub bytes.Buffer
	err = errors.Join(
		templates.ExecuteTemplate(&script, "boot.ipxe.tmpl", values.with(ipxeMAC)),
		templates.ExecuteTemplate(&grub, "grub.cfg.tmpl", values.with(grubMAC)),
	)
	return plan{script: script.Bytes(), grub: grub.Bytes()}, err
}

// choosesCard reports whether kernel arguments name a network card: that may be another
// one than a machine boots from.
func choosesCard(args []string) bool {
	return slices.ContainsFunc(args, func(arg string) bool {
		name, _, _ := strings.Cut(arg, "=")
		return slices.Contains([]string{"ip", "BOOTIF", "viver.network.interface"}, name)
	})
}

// host is how URLs and nodes name this host.
func (c *Config) host() string {
	if c.HTTPPort == httpPort {
		return c.Address.Addr().String()
	}
	return netip.AddrPortFrom(c.Address.Addr(), c.HTTPPort).String()
}

// grubFor makes the configuration for one machine, which may know its MAC
// itself (grubMAC). Over the firmware's HTTP, GRUB asks how long the text is and
// then for the text; the answers may name different sources, so that all are
// made equally long.
func (p plan) grubFor(mac string, sources []netip.AddrPort) []byte {
	devices := make([]string, len(sources))
	for i, s := range sources {
		devices[i] = grubDevice(s)
	}
	from := strings.Join(devices, " ")
	text := bytes.ReplaceAll(p.grub, []byte(grubMAC), []byte(mac))
	return bytes.ReplaceAll(text, []byte(grubFrom), fmt.Appendf(nil, "%-*s", maxGrubFrom, from))
}

// grubDevice is what GRUB calls an HTTP server.
func grubDevice(server netip.AddrPort) string {
	if server.Port() == httpPort {
		return "http," + server.Addr().String()
	}
	return "http," + server.String()
}

// scriptValues fills the templates in assets.
type scriptValues struct {
	Label     string // for people
	Host      string
	Kernel    string // absolute names on this host
	Initramfs string
	NICs      string // empty if the image has none
	Card      string // of the URL's query: which drivers are wanted
	Whole     string // initramfs and drivers of all network cards
	From      string // GRUB's devices, in order
	Shim      string // that trusts the kernel; empty if the image has none
	Args      string // kernel command line
}

func (v scriptValues) with(mac string) scriptValues {
	v.Args += mac
	return v
}
