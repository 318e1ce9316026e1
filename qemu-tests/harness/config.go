package harness

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"viver.lan/internal/trialboot"
	"viver.lan/qemu-tests/harness/lan"
)

// Firmware is what starts a machine.
type Firmware string

// The firmwares. Empty means BIOS.
const (
	BIOS        Firmware = "bios"         // SeaBIOS
	UEFI        Firmware = "uefi"         // OVMF
	SecureUEFI  Firmware = "uefi-secure"  // OVMF with Secure Boot on, and Microsoft's keys
	TestKeyUEFI Firmware = "uefi-testkey" // the same with a test key that the package has for everybody, and no other
)

// IsUEFI says whether the firmware is a UEFI, of any kind.
func (f Firmware) IsUEFI() bool { return f == UEFI || f.isSecure() }

// isSecure says whether Secure Boot is on.
func (f Firmware) isSecure() bool { return f == SecureUEFI || f == TestKeyUEFI }

// Device is something that a machine can boot from.
type Device string

// The devices of a boot order.
const (
	CD      Device = "cd"
	USB     Device = "usb"
	Disk    Device = "disk" // the first of Config.Disks
	Network Device = "network"
)

// Config is the machine on the bench before its power is switched on.
type Config struct {
	// Name is the machine's name in messages and file names.
	Name string
	// Memory in MiB; 512 if zero.
	Memory int
	// CPUs; 1 if zero, which is the fastest without KVM.
	CPUs int
	// Machine is QEMU's board with its options; q35 if empty. "pc" is i440fx; with ",usb=on"
	// either has USB ports.
	Machine  string
	Firmware Firmware
	// CDROM is an ISO in a SATA drive.
	CDROM string
	// USBStick is a raw image of a stick; what the guest writes is kept.
	USBStick string
	// Disks are raw images behind virtio-blk; what the guest writes is kept.
	Disks []string
	// Kernel, Initrd and Append boot without any firmware program.
	Kernel, Initrd, Append string
	NICs                   []NIC
	// Boot is the order of devices to boot from. If empty: the medium (CD,
	// then USB), or the network if there is none.
	Boot []Device
	// HTTPBoot leaves UEFI without PXE: it asks the network by HTTP Boot.
	HTTPBoot bool
	// Graphics is the display adapter's QEMU device, e.g. "VGA" (the default)
	// or "virtio-vga"; "none" leaves it out.
	Graphics string
	// Display is QEMU's -display, e.g. "gtk"; none if empty.
	Display string
	// Args are appended to QEMU's command line as they are.
	Args []string
}

// NIC is a network card and the switch at the other end of its cable.
type NIC struct {
	LAN *lan.Switch
	// MAC is derived from the machine's name if empty.
	MAC string
	// Model is QEMU's device; virtio-net-pci if empty.
	Model string
	// NoROM leaves the card without QEMU's own boot ROM, which is iPXE: UEFI
	// then boots with its own PXE client, BIOS not at all.
	NoROM bool
	// BitsPerSecond limits the link in each direction; 0: no limit.
	BitsPerSecond float64
	// Mangle, when set, changes frames that the machine sends, in place.
	Mangle func(frame []byte)
}

// Ports of the guest that carry events, one for each program, so that their
// lines cannot mix. The order is that of the descriptors.
func eventPorts() []string {
	return []string{"viver.events.uinit", "viver.events.vfield", "viver.events.viverd"}
}

func (c Config) withDefaults() Config {
	if c.Memory == 0 {
		c.Memory = 512
	}
	if c.CPUs == 0 {
		c.CPUs = 1
	}
	if c.Machine == "" {
		c.Machine = "q35"
	}
	if c.Firmware == "" {
		c.Firmware = BIOS
	}
	if c.Graphics == "" {
		c.Graphics = "VGA"
	}
	if c.Display == "" {
		c.Display = "none"
	}
	if len(c.Boot) == 0 {
		switch {
		case c.Kernel != "":
		case c.CDROM != "" || c.USBStick != "":
			c.Boot = []Device{CD, USB}
		default:
			c.Boot = []Device{Network}
		}
	}
	c.NICs = append([]NIC(nil), c.NICs...)
	for i := range c.NICs {
		if c.NICs[i].MAC == "" {
			c.NICs[i].MAC = macFor(c.Name, i)
		}
		if c.NICs[i].Model == "" {
			c.NICs[i].Model = "virtio-net-pci"
		}
	}
	return c
}

// macFor derives an address from the machine's name, so that a scenario sees
// the same addresses each time.
func macFor(name string, nic int) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%d", name, nic)
	s := h.Sum32()
	return net.HardwareAddr{0x52, 0x54, 0, byte(s >> 16), byte(s >> 8), byte(s)}.String()
}

func (c Config) validate() error {
	var errs []error
	if c.Name == "" || c.Name != filepath.Base(c.Name) || strings.ContainsAny(c.Name, ", ") {
		errs = append(errs, fmt.Errorf("name %q: want a word that can be part of a file name", c.Name))
	}
	if c.Firmware != BIOS && !c.Firmware.IsUEFI() {
		errs = append(errs, fmt.Errorf("firmware %q: want %s, %s, %s or %s", c.Firmware, BIOS, UEFI, SecureUEFI, TestKeyUEFI))
	}
	if c.HTTPBoot && !c.Firmware.IsUEFI() {
		errs = append(errs, fmt.Errorf("firmware %s has no HTTP Boot", c.Firmware))
	}
	for _, n := range c.NICs {
		if _, err := net.ParseMAC(n.MAC); err != nil {
			errs = append(errs, err)
		}
		if n.LAN == nil {
			errs = append(errs, fmt.Errorf("network card %s: no LAN to plug it into", n.MAC))
		}
	}
	for _, path := range append([]string{c.CDROM, c.USBStick, c.Kernel, c.Initrd}, c.Disks...) {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// wiring tells the command line where the other ends are: descriptors when
// this process starts QEMU, files and a multicast network when a person
// repeats the run by hand.
type wiring struct {
	accel   string // "kvm" or "tcg"
	vars    string // this machine's copy of OVMF's variables
	qmp     string // chardev backends after "id=…,"
	serial  string
	ports   map[string]string // by port name
	netdevs []string          // by NIC, netdev after the id
}

// ovmf returns where Debian and Ubuntu keep the UEFI firmware and what its
// variables are at first. The build with 4 MB is the one that both still ship.
// With keys among the variables Secure Boot is on.
func (f Firmware) ovmf() (code, vars string) {
	const dir = "/usr/share/OVMF/"
	switch f {
	case SecureUEFI:
		return dir + "OVMF_CODE_4M.secboot.fd", dir + "OVMF_VARS_4M.ms.fd"
	case TestKeyUEFI:
		return dir + "OVMF_CODE_4M.secboot.fd", dir + "OVMF_VARS_4M.snakeoil.fd"
	}
	return dir + "OVMF_CODE_4M.fd", dir + "OVMF_VARS_4M.fd"
}

// args is the whole command line after the program's name. The receiver has
// its defaults.
func (c Config) args(w wiring) []string {
	a := []string{
		"-name", c.Name,
		"-no-user-config", "-nodefaults",
		// graphics=off lets SeaBIOS and what it starts show their text on the
		// serial port too.
		"-machine", c.Machine + ",graphics=off,accel=" + w.accel,
		"-m", strconv.Itoa(c.Memory),
		"-smp", strconv.Itoa(c.CPUs),
		"-boot", "strict=on", // nothing but what Boot lists
		"-display", c.Display,
		"-device", "virtio-rng-pci",
		"-chardev", w.qmp, "-mon", "chardev=qmp,mode=control",
		"-chardev", w.serial, "-serial", "chardev:serial",
	}
	a = append(a, "-cpu", trialboot.CPU(w.accel))
	if c.Graphics != "none" {
		a = append(a, "-device", c.Graphics)
	}
	a = append(a, c.uefiArgs(w)...)
	a = append(a, "-device", "virtio-serial-pci")
	for i, name := range agentAndEventPorts() {
		id := "port" + strconv.Itoa(i)
		a = append(a, "-chardev", w.ports[name],
			"-device", "virtserialport,chardev="+id+",name="+name)
	}
	if c.Kernel != "" {
		a = append(a, "-kernel", c.Kernel)
		if c.Initrd != "" {
			a = append(a, "-initrd", c.Initrd)
		}
		if c.Append != "" {
			a = append(a, "-append", c.Append)
		}
	}
	a = append(a, c.driveArgs()...)
	for i, n := range c.NICs {
		id := "net" + strconv.Itoa(i)
		dev := n.Model + ",id=nic" + strconv.Itoa(i) + ",netdev=" + id + ",mac=" + n.MAC
		if n.NoROM {
			dev += ",romfile="
		}
		if i == 0 {
			dev += c.bootIndex(Network)
		}
		a = append(a, "-netdev", w.netdevs[i], "-device", dev)
	}
	return append(a, c.Args...)
}

func (c Config) uefiArgs(w wiring) []string {
	if !c.Firmware.IsUEFI() {
		return nil
	}
	code, _ := c.Firmware.ovmf()
	a := []string{
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + code,
		"-drive", "if=pflash,unit=1,format=raw,file=" + escape(w.vars),
	}
	if c.Firmware.isSecure() {
		// The variables are written in system management mode only, else any
		// program could put its own key among them.
		a = append(a, "-machine", "smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on")
	}
	if c.HTTPBoot {
		for _, pxe := range []string{"IPv4PXESupport", "IPv6PXESupport"} {
			a = append(a, "-fw_cfg", "name=opt/org.tianocore/"+pxe+",string=n")
		}
	}
	return a
}

func (c Config) driveArgs() []string {
	var a []string
	if c.CDROM != "" {
		a = append(a, "-drive", "if=none,id=cd,media=cdrom,readonly=on,format=raw,file="+escape(c.CDROM),
			"-device", "ide-cd,id=cddrive,bus=ide.0,drive=cd"+c.bootIndex(CD))
	}
	if c.USBStick != "" {
		a = append(a, "-drive", "if=none,id=stick,format=raw,file="+escape(c.USBStick),
			"-device", "qemu-xhci",
			"-device", "usb-storage,id=usbstick,removable=on,drive=stick"+c.bootIndex(USB))
	}
	for i, path := range c.Disks {
		id := "disk" + strconv.Itoa(i)
		dev := "virtio-blk-pci,id=v" + id + ",serial=" + id + ",drive=" + id
		if i == 0 {
			dev += c.bootIndex(Disk)
		}
		a = append(a, "-drive", "if=none,id="+id+",format=raw,file="+escape(path), "-device", dev)
	}
	return a
}

// bootIndex is the property that gives a device its place in the boot order.
func (c Config) bootIndex(d Device) string {
	for i, want := range c.Boot {
		if want == d {
			return ",bootindex=" + strconv.Itoa(i)
		}
	}
	return ""
}

// escape doubles the commas in a value of a QEMU option.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
