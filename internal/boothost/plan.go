package boothost

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"text/template"

	"viver.lan/internal/cmdline"
	"viver.lan/internal/dhcp"
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

// plan is what every machine is told to boot, as the scripts say it.
type plan struct {
	script []byte // iPXE's
	grub   []byte // GRUB's, for a machine that knows its MAC itself
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
	args = append(args, "viver.image="+m.Infohash.String())
	args = append(args, cfg.KernelArgs...)
	base := "/boot/" + m.Infohash.String() + "/"
	words := scriptWords{
		Label:     cmdline.MadePlain(m.Name),
		Host:      cfg.host(),
		Kernel:    base + manifest.Kernel,
		Initramfs: base + manifest.Initramfs,
		Args:      strings.Join(args, " ") + " BOOTIF=",
	}
	templates, err := template.ParseFS(assets, "assets/*.tmpl")
	if err != nil {
		return plan{}, err
	}
	var script, grub bytes.Buffer
	err = errors.Join(
		templates.ExecuteTemplate(&script, "boot.ipxe.tmpl", words.with(ipxeMAC)),
		templates.ExecuteTemplate(&grub, "grub.cfg.tmpl", words.with(grubMAC)),
	)
	return plan{script: script.Bytes(), grub: grub.Bytes()}, err
}

// host is how URLs and nodes name this host.
func (c *Config) host() string {
	if c.HTTPPort == httpPort {
		return c.Address.Addr().String()
	}
	return netip.AddrPortFrom(c.Address.Addr(), c.HTTPPort).String()
}

// grubFor makes the configuration for one machine.
func (p plan) grubFor(mac dhcp.MAC) []byte {
	return bytes.ReplaceAll(p.grub, []byte(grubMAC), []byte(mac.String()))
}

// scriptWords fills the templates in assets.
type scriptWords struct {
	Label     string // for people
	Host      string
	Kernel    string // absolute names on this host
	Initramfs string
	Args      string // kernel command line
}

func (w scriptWords) with(mac string) scriptWords {
	w.Args += mac
	return w
}
