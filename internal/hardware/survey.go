package hardware

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Device is a part of the machine that people ask about: a network card, what disks are
// attached to, graphics, USB ports.
type Device struct {
	Kind    string `json:"kind"`
	Bus     string `json:"bus"`            // pci or usb
	Address string `json:"address"`        // on the bus, e.g. 0000:00:19.0
	ID      string `json:"id"`             // of vendor and device, as lspci(8) and lsusb(8) write them: 8086:1502
	Name    string `json:"name,omitempty"` // of the vendor at least, where it is known
	// Link is the kernel's name of a network card that has its driver, e.g. eth0.
	Link   string `json:"link,omitempty"`
	Driver string `json:"driver,omitempty"` // that runs it
	// Modules could run it, if there is no driver.
	Modules []string `json:"modules,omitempty"`
	// Missing says why it does not run and what to do, Slow what keeps it below its means:
	// sentences for people.
	Missing []string `json:"missing,omitempty"`
	Slow    []string `json:"slow,omitempty"`
}

// The kinds of devices.
const (
	KindNetwork  = "network"
	KindWireless = "wireless"
	KindStorage  = "storage"
	KindGraphics = "graphics"
	KindUSB      = "usb"
)

// String names the device for people: what it is, and where.
func (d Device) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s at %s %s", d.ID, d.Name, d.Bus, d.Address))
}

// ForBoot reports whether a machine may need the device to boot. Graphics and wireless cards
// are the distribution's.
func (d Device) ForBoot() bool {
	return d.Kind == KindNetwork || d.Kind == KindStorage || d.Kind == KindUSB
}

// Drivers says what could run a device.
type Drivers interface {
	// Match returns the modules that claim a modalias, as Tree does.
	Match(modalias string) []string
}

// Survey lists the devices of the machine whose /sys is below root. drivers says what could
// run those that nothing runs; with nil that is not looked for. log is the kernel's, as far
// as there is any: it says which firmware was asked for without success.
func Survey(root string, drivers Drivers, log string) []Device {
	devices := append(pciDevices(root), usbDevices(root, drivers)...)
	lost := FirmwareNotFound(log)
	for i := range devices {
		d := &devices[i]
		// The driver of the bus below is not that of the card.
		if d.Driver == "" {
			d.Missing = append(d.Missing, d.noDriver(root, drivers))
		}
		for _, f := range lost {
			if f.Device == d.Address && !firmwareIsThere(root, f.File) {
				d.Missing = append(d.Missing, f.String())
			}
		}
	}
	return devices
}

// noDriver says why nothing runs a device.
func (d *Device) noDriver(root string, drivers Drivers) string {
	if drivers == nil {
		return "no driver runs it"
	}
	d.Modules = drivers.Match(line(filepath.Join(root, "sys/bus", d.Bus, "devices", d.Address), "modalias"))
	if len(d.Modules) == 0 {
		return "no driver runs it: no module of this kernel claims it. A newer kernel may have one, or its maker"
	}
	name := d.Modules[0]
	if _, err := os.Stat(filepath.Join(root, "sys/module", name)); err == nil {
		return fmt.Sprintf("no driver runs it: %s is loaded and did not take it. dmesg says why", name)
	}
	return fmt.Sprintf("no driver runs it: module %s would, and is not loaded. Is it in the image, or on a blacklist in /etc/modprobe.d? Try: modprobe %s", name, name)
}

// pciKinds are the classes of PCI devices (pci_ids.h), as /sys writes them.
var pciKinds = []struct{ class, kind string }{
	{"0x0280", KindWireless}, {"0x02", KindNetwork}, {"0x01", KindStorage}, {"0x0805", KindStorage}, {"0x03", KindGraphics}, {"0x0c03", KindUSB},
}

func pciDevices(root string) (devices []Device) {
	dirs, _ := filepath.Glob(filepath.Join(root, "sys/bus/pci/devices/*"))
	for _, dir := range dirs {
		class := line(dir, "class")
		i := slices.IndexFunc(pciKinds, func(k struct{ class, kind string }) bool { return strings.HasPrefix(class, k.class) })
		if i < 0 {
			continue
		}
		vendor, device := strings.TrimPrefix(line(dir, "vendor"), "0x"), strings.TrimPrefix(line(dir, "device"), "0x")
		d := Device{
			Kind: pciKinds[i].kind, Bus: "pci", Address: filepath.Base(dir),
			ID: vendor + ":" + device, Name: vendors[vendor], Driver: driver(dir),
		}
		d.Link, d.Slow = linkOf(dir)
		d.Slow = append(d.Slow, narrow(dir)...)
		devices = append(devices, d)
	}
	return devices
}

// narrow says when a card of PCI Express has fewer lanes than it could use. Its speed is
// left out: idle devices lower that to save power.
func narrow(dir string) []string {
	width, err := strconv.Atoi(line(dir, "current_link_width"))
	most, err2 := strconv.Atoi(line(dir, "max_link_width"))
	const unknown = 255
	if err != nil || err2 != nil || width == 0 || most >= unknown || width >= most {
		return nil
	}
	return []string{fmt.Sprintf("runs on %d of the %d lanes of PCI Express that it can use: does its slot have more, does it sit in it firmly?", width, most)}
}

// usbDevices lists the network adapters and disks on USB, and what has no driver though
// there is one. The driver is that of an interface; of a device's several interfaces the
// first that tells counts.
func usbDevices(root string, drivers Drivers) (devices []Device) {
	dirs, _ := filepath.Glob(filepath.Join(root, "sys/bus/usb/devices/*:*"))
	seen := make(map[string]bool)
	for _, dir := range dirs {
		device, _, _ := strings.Cut(filepath.Base(dir), ":")
		modalias := line(dir, "modalias")
		kind := usbKind(modalias)
		link, slow := linkOf(dir)
		if link != "" {
			kind = KindNetwork
		} else if kind == "" && driver(dir) == "" && drivers != nil && len(drivers.Match(modalias)) > 0 {
			kind = KindUSB
		}
		if kind == "" || seen[device] {
			continue
		}
		of := filepath.Join(filepath.Dir(dir), device)
		vendor, product := line(of, "idVendor"), line(of, "idProduct")
		d := Device{
			Kind: kind, Bus: "usb", Address: filepath.Base(dir), ID: vendor + ":" + product,
			Name: strings.TrimSpace(line(of, "manufacturer") + " " + line(of, "product")), Driver: driver(dir),
			Link: link, Slow: slow,
		}
		if line(of, "speed") == "12" {
			d.Slow = append(d.Slow, "runs at USB's 12 Mbit/s: another port or hub may be faster")
		}
		seen[device] = true
		devices = append(devices, d)
	}
	return devices
}

// usbKind tells from an interface's classes (usb.org/defined-class-codes) what it is for: a
// disk, or an adapter that speaks a standard. Of others only the driver tells.
func usbKind(modalias string) string {
	_, classes, ok := strings.Cut(modalias, "ic")
	switch {
	case !ok:
		return ""
	case strings.HasPrefix(classes, "08"):
		return KindStorage
	case strings.HasPrefix(classes, "02isc06"), strings.HasPrefix(classes, "02isc0D"):
		return KindNetwork
	}
	return ""
}

// linkOf returns the network link of the device in dir, if it has one, and what keeps it
// below its means.
func linkOf(dir string) (name string, slow []string) {
	links, _ := filepath.Glob(filepath.Join(dir, "net/*"))
	virtio, _ := filepath.Glob(filepath.Join(dir, "virtio*/net/*")) // the card is a device on its own bus
	if links = append(links, virtio...); len(links) == 0 {
		return "", nil
	}
	link := links[0]
	name = filepath.Base(link)
	speed, err := strconv.Atoi(line(link, "speed"))
	if err != nil || speed <= 0 {
		return name, nil // no carrier, or a virtual card that has no speed
	}
	if most := fastest(name); speed < most {
		slow = append(slow, fmt.Sprintf("its link has %d Mbit/s and the card can have %d: is the cable good (all four pairs), is it the switch?", speed, most))
	}
	if line(link, "duplex") == "half" {
		slow = append(slow, "its link is half duplex: the switch's port is set by hand, or the cable is bad")
	}
	return name, slow
}

// vendors are the makers of what machines boot with, by PCI ID: an initramfs has no pci.ids.
var vendors = map[string]string{
	"8086": "Intel", "10ec": "Realtek", "14e4": "Broadcom", "15b3": "Mellanox", "1969": "Qualcomm Atheros", "168c": "Qualcomm Atheros",
	"11ab": "Marvell", "1d6a": "Aquantia", "1022": "AMD", "1002": "AMD", "10de": "NVIDIA", "15ad": "VMware", "1af4": "Red Hat (virtio)",
	"1b36": "Red Hat (QEMU)", "5853": "Xen", "1414": "Microsoft", "19a2": "Emulex", "1077": "QLogic", "1137": "Cisco", "1425": "Chelsio",
	"1924": "Solarflare", "1000": "LSI", "103c": "HP", "9005": "Adaptec", "1b4b": "Marvell", "144d": "Samsung", "15b7": "SanDisk",
	"1c5c": "SK hynix", "1987": "Phison", "1b21": "ASMedia", "1106": "VIA", "1814": "Ralink", "14c3": "MediaTek", "1d0f": "Amazon",
}

// Sort orders devices by kind, as people ask for them, and address.
func Sort(devices []Device) {
	kinds := []string{KindNetwork, KindStorage, KindGraphics, KindUSB, KindWireless}
	slices.SortStableFunc(devices, func(a, b Device) int {
		return cmp.Or(slices.Index(kinds, a.Kind)-slices.Index(kinds, b.Kind), strings.Compare(a.Address, b.Address))
	})
}
