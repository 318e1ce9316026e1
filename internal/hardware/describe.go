package hardware

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jaypipes/ghw"
)

// Machine describes the machine for people, for the status page and for runes.
// What could not be found out is empty or zero.
type Machine struct {
	Firmware string `json:"firmware"` // "bios" or "uefi"
	Vendor   string `json:"vendor,omitempty"`
	Product  string `json:"product,omitempty"`
	// UUID is the system's identity in SMBIOS. Cheap boards share one.
	UUID    string `json:"uuid,omitempty"`
	CPU     string `json:"cpu,omitempty"`
	Threads int    `json:"threads,omitempty"`
	Memory  int64  `json:"memory"` // usable bytes
	// KVM says that the processors can run virtual machines, and the firmware lets them.
	KVM      bool       `json:"kvm,omitempty"`
	NICs     []NIC      `json:"nics,omitempty"`
	Graphics []Graphics `json:"graphics,omitempty"`
}

// NIC is one network card, whether or not a cable is plugged in.
type NIC struct {
	Name   string `json:"name"`
	MAC    string `json:"mac,omitempty"`
	Driver string `json:"driver,omitempty"`
	PCI    string `json:"pci,omitempty"` // address, e.g. 0000:00:03.0
}

// Graphics is one graphics card.
type Graphics struct {
	PCI string `json:"pci,omitempty"`
	// Vendor and Device are the PCI identifiers, four hexadecimal digits.
	Vendor string `json:"vendor,omitempty"`
	Device string `json:"device,omitempty"`
	// Card is the kernel's name below /dev/dri, e.g. card0; empty while no
	// kernel driver with mode setting runs the card.
	Card string `json:"card,omitempty"`
	// Driver is the kernel driver that runs the card now, e.g. i915.
	Driver string `json:"driver,omitempty"`
	// Modalias finds the drivers that could run it, see Tree.Match.
	Modalias string `json:"modalias,omitempty"`
}

// String is one line for the console.
func (m Machine) String() string {
	words := []string{m.Firmware}
	if m.Product != "" {
		words = append(words, strings.TrimSpace(m.Vendor+" "+m.Product))
	}
	words = append(words, fmt.Sprintf("%d MiB of memory", m.Memory>>20))
	for _, n := range m.NICs {
		words = append(words, strings.TrimSpace(n.Name+" "+n.MAC+" "+n.Driver))
	}
	for _, g := range m.Graphics {
		name := g.Driver
		if name == "" {
			name = g.Vendor + ":" + g.Device
		}
		words = append(words, "graphics "+name)
	}
	return strings.Join(words, ", ")
}

// Describe describes the machine, with ghw; root is put before /sys and /proc. What
// cannot be found out is left empty.
func Describe(root string) Machine {
	if root == "" {
		root = "/"
	}
	// No external programs: there are none in an initramfs.
	opts := []any{ghw.WithChroot(root), ghw.WithDisableWarnings(), ghw.WithDisableTools(), ghw.WithDisableTopology()}
	m := Machine{Firmware: "bios"}
	if _, err := os.Stat(filepath.Join(root, "sys/firmware/efi")); err == nil {
		m.Firmware = "uefi"
	}
	if p, err := ghw.Product(opts...); err == nil {
		m.Vendor, m.Product, m.UUID = known(p.Vendor), known(p.Name), strings.ToLower(known(p.UUID))
	}
	if c, err := ghw.CPU(opts...); err == nil {
		m.Threads = int(c.TotalHardwareThreads)
		if len(c.Processors) > 0 {
			m.CPU = known(c.Processors[0].Model)
			m.KVM = slices.ContainsFunc(c.Processors[0].Capabilities, func(flag string) bool { return flag == "vmx" || flag == "svm" })
		}
	}
	if mem, err := ghw.Memory(opts...); err == nil {
		m.Memory = mem.TotalUsableBytes
	}
	if n, err := ghw.Network(opts...); err == nil {
		for _, nic := range n.NICs {
			if nic.IsVirtual {
				continue
			}
			device := filepath.Join(root, "sys/class/net", nic.Name, "device")
			m.NICs = append(m.NICs, NIC{Name: nic.Name, MAC: nic.MACAddress, Driver: driver(device), PCI: pciAddress(root, device)})
		}
	}
	m.Graphics = graphics(root)
	return m
}

// graphics joins the PCI display controllers with the kernel's DRM cards. A
// card may have either without the other: no driver is loaded yet, or the card
// is not on PCI (Hyper-V, a frame buffer left by the firmware).
//
// PCI is read here and not by ghw, which wants a pci.ids file and gives up on
// the whole bus when one device looks odd.
func graphics(root string) []Graphics {
	cards := drmCards(root)
	var all []Graphics
	dirs, _ := filepath.Glob(filepath.Join(root, "sys/bus/pci/devices/*"))
	for _, dir := range dirs {
		if class := line(dir, "class"); !strings.HasPrefix(class, "0x03") {
			continue
		}
		g := Graphics{
			PCI:      filepath.Base(dir),
			Vendor:   strings.TrimPrefix(line(dir, "vendor"), "0x"),
			Device:   strings.TrimPrefix(line(dir, "device"), "0x"),
			Driver:   driver(dir),
			Modalias: line(dir, "modalias"),
		}
		if i := slices.IndexFunc(cards, func(c Graphics) bool { return c.PCI == g.PCI }); i >= 0 {
			// The card's own driver is right: virtio-pci is the bus's driver,
			// virtio_gpu the card's.
			g.Card, g.Driver = cards[i].Card, cards[i].Driver
			cards = slices.Delete(cards, i, i+1)
		}
		all = append(all, g)
	}
	return append(all, cards...)
}

// drmCards lists the cards that a kernel driver runs.
func drmCards(root string) []Graphics {
	dirs, _ := filepath.Glob(filepath.Join(root, "sys/class/drm/card[0-9]*"))
	var cards []Graphics
	for _, dir := range dirs {
		name := filepath.Base(dir)
		device, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
		if err != nil || strings.Contains(name, "-") {
			continue // a connector, e.g. card0-HDMI-A-1
		}
		g := Graphics{Card: name, Driver: driver(device), PCI: pciAddress(root, device)}
		if g.Driver == "virtio-pci" {
			// Newer kernels hang the card on the PCI device directly.
			g.Driver = "virtio_gpu"
		}
		cards = append(cards, g)
	}
	return cards
}

// pciAddress returns the address of the PCI device that the device in dir is,
// or sits behind.
func pciAddress(root, dir string) string {
	for dir, _ = filepath.EvalSymlinks(dir); len(dir) > len(root); dir = filepath.Dir(dir) {
		if target, err := os.Readlink(filepath.Join(dir, "subsystem")); err == nil && filepath.Base(target) == "pci" {
			return filepath.Base(dir)
		}
	}
	return ""
}

// line returns the text of a one-line file, or nothing.
func line(dir, name string) string {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// driver returns the name of the driver that runs the device in dir.
func driver(dir string) string {
	target, err := os.Readlink(filepath.Join(dir, "driver"))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}

// known turns ghw's "unknown" into the empty string.
func known(s string) string {
	if strings.EqualFold(s, "unknown") {
		return ""
	}
	return strings.TrimSpace(s)
}
