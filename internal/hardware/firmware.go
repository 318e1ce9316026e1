package hardware

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"viver.lan/internal/decompress"
)

// Firmware is a file that a device's driver asked for and did not get.
type Firmware struct {
	Driver string `json:"driver"` // e.g. r8169
	Device string `json:"device"` // its address, e.g. 0000:03:00.0
	File   string `json:"file"`   // below lib/firmware
}

// String says what is missing and where it comes from.
func (f Firmware) String() string {
	return fmt.Sprintf("its driver %s asked for the firmware %s, which is not there: install %s in the image, or on another distribution than Debian linux-firmware", f.Driver, f.File, f.Package())
}

// firmwarePackages are Debian's, by how the names of their files begin.
var firmwarePackages = []struct{ prefix, name string }{
	{"rtl_nic/", "firmware-realtek"}, {"rtl_bt/", "firmware-realtek"}, {"rtlwifi/", "firmware-realtek"}, {"rtw88/", "firmware-realtek"}, {"rtw89/", "firmware-realtek"},
	{"bnx2/", "firmware-bnx2"}, {"bnx2x/", "firmware-bnx2x"},
	{"iwlwifi-", "firmware-iwlwifi"}, {"ath", "firmware-atheros"}, {"brcm/", "firmware-brcm80211"},
	{"amdgpu/", "firmware-amd-graphics"}, {"radeon/", "firmware-amd-graphics"},
	{"netronome/", "firmware-netronome"}, {"qed/", "firmware-qlogic"}, {"ql2", "firmware-qlogic"}, {"phanfw", "firmware-qlogic"},
}

// Package returns the Debian package that has the file, as well as is known.
func (f Firmware) Package() string {
	for _, p := range firmwarePackages {
		if strings.HasPrefix(f.File, p.prefix) {
			return p.name
		}
	}
	return "firmware-misc-nonfree"
}

// notFound are the sentences of the kernel about firmware that is not there: its own, and
// Debian's. Before them are driver and device.
var notFound = regexp.MustCompile(`(\S+) (\S+): (?:Direct firmware load for (\S+) failed with error -2|firmware: failed to load (\S+) \(-2\))`)

// KernelLog returns what the kernel's log still has; root may read it everywhere.
func KernelLog() (string, error) {
	const readAll, size = 3, 10 // syslog(2)
	n, err := unix.Klogctl(size, nil)
	if err != nil {
		return "", fmt.Errorf("read the kernel's log: %w", err)
	}
	buf := make([]byte, n)
	if n, err = unix.Klogctl(readAll, buf); err != nil {
		return "", fmt.Errorf("read the kernel's log: %w", err)
	}
	return string(buf[:n]), nil
}

// FirmwareNotFound reads the kernel's log. Each file is in the answer once for a device.
func FirmwareNotFound(log string) (lost []Firmware) {
	for text := range strings.Lines(log) {
		if !strings.Contains(text, "firmware") {
			continue // the expression takes milliseconds for the log of a boot
		}
		if m := notFound.FindStringSubmatch(text); m != nil {
			f := Firmware{m[1], m[2], cmp.Or(m[3], m[4])}
			if i := strings.LastIndexByte(f.Driver, ']'); i >= 0 {
				f.Driver = f.Driver[i+1:] // the time before it
			}
			if !slices.Contains(lost, f) {
				lost = append(lost, f)
			}
		}
	}
	return lost
}

// firmwareIsThere says whether a file has come meanwhile, compressed or not.
func firmwareIsThere(root, file string) bool {
	return slices.ContainsFunc(append([]string{""}, decompress.Endings...), func(ending string) bool {
		_, err := os.Stat(filepath.Join(root, "lib/firmware", file+ending))
		return err == nil
	})
}
