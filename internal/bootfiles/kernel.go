// Package bootfiles chooses what boots an image and makes its boot files: it finds
// the kernel in an installed Linux, judges whether that can boot without a disk,
// writes the initramfs and the drivers that follow it, and takes the boot programs
// that trust the kernel.
//
// It reads the Linux as an fs.FS whose symbolic links stay inside, and changes
// nothing in it. The invariant: a kernel, a module and a boot program are copied as
// they are signed.
package bootfiles

import (
	"bytes"
	"cmp"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// Kernel is a bootable kernel found in a tree.
type Kernel struct {
	// Release is what uname -r will print.
	Release string
	// Path of the kernel image in the Linux it is for.
	Path string
	// Image is the kernel itself when it is one of this host that the Linux does not
	// have, ModTime when it was made.
	Image   []byte
	ModTime time.Time
	// Modules is the directory of its modules in the Linux.
	Modules string
}

// Files are the names of what only this kernel needs; some may not exist.
func (k Kernel) Files() []string {
	return []string{k.Path, k.Modules, "boot/config-" + k.Release, "boot/System.map-" + k.Release}
}

// Read returns the kernel; of a unified image only that part of it.
func (k Kernel) Read(linux fs.FS) ([]byte, error) {
	if k.Image != nil {
		return k.Image, nil
	}
	data, err := fs.ReadFile(linux, k.Path)
	if err != nil || !strings.HasSuffix(k.Path, ".efi") {
		return data, err
	}
	return unifiedKernel(data), nil
}

// nixProfile is where NixOS has the system that boots next: its kernel, its modules,
// its firmware and its init.
const nixProfile = "nix/var/nix/profiles/system"

// kernelPlaces are where distributions put their kernels: in /boot under several
// names, beside the modules, with systemd-boot by machine and release, in a
// unified image of it, by ostree deployment, in the profile and the store of NixOS.
var kernelPlaces = []string{
	"boot/vmlinuz*", "boot/bzImage*", "boot/kernel-*",
	"lib/modules/*/vmlinuz*", "usr/lib/modules/*/vmlinuz*",
	"boot/*/*/linux", "boot/efi/*/*/linux", "efi/*/*/linux",
	"boot/*/*/linux-*", "boot/efi/*/*/linux-*", "efi/*/*/linux-*", // of openSUSE's sdbootutil, by content
	"boot/ostree/*/vmlinuz-*", "usr/lib/ostree-boot/vmlinuz-*",
	nixProfile + "/kernel", "boot/EFI/nixos/*bzImage.efi", "boot/kernels/*bzImage", "nix/store/*-linux-*/bzImage",
	"boot/EFI/Linux/*.efi", "boot/efi/EFI/Linux/*.efi", "efi/EFI/Linux/*.efi",
}

// ModulesDir returns where a Linux has the modules of a kernel: in /lib/modules, which
// most have as a link to /usr/lib/modules, or in the profile of NixOS. If it has none, that
// is a directory that does not exist.
func ModulesDir(linux fs.FS, release string) string {
	const usual = "lib/modules/"
	for _, place := range []string{usual, "usr/lib/modules/", nixProfile + "/kernel-modules/lib/modules/"} {
		if list(linux, place+release) != nil {
			return place + release
		}
	}
	return usual + release
}

// Kernels returns the kernels of a Linux, newest first, and what was taken for a
// kernel and is none.
func Kernels(linux fs.FS) (found []Kernel, problems []string) {
	seen, tried := make(map[string]bool), make(map[string]bool)
	for _, place := range kernelPlaces {
		names, _ := fs.Glob(linux, place) // the patterns are ours
		for _, name := range names {
			short := strings.TrimPrefix(name, "usr/") // /lib is a link to /usr/lib nearly everywhere
			if tried[short] || !isFile(linux, name) {
				continue
			}
			tried[short] = true
			release, err := kernelRelease(linux, name)
			if err != nil {
				problems = append(problems, fmt.Sprintf("/%s is not a kernel that a PC can boot: %v", name, err))
				continue
			}
			if !seen[release] {
				seen[release] = true
				found = append(found, Kernel{Release: release, Path: name, Modules: ModulesDir(linux, release)})
			}
		}
	}
	slices.SortFunc(found, func(a, b Kernel) int { return compareReleases(b.Release, a.Release) })
	return found, problems
}

// isFile reports whether name leads to a regular file.
func isFile(linux fs.FS, name string) bool {
	fi, err := fs.Stat(linux, name)
	return err == nil && fi.Mode().IsRegular()
}

func kernelRelease(linux fs.FS, name string) (string, error) {
	if strings.HasSuffix(name, ".efi") {
		image, err := Kernel{Path: name}.Read(linux)
		if err != nil {
			return "", err
		}
		return parseBzImage(image)
	}
	f, err := linux.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return "", err
	}
	return parseBzImage(head)
}

// unifiedKernel returns the kernel in a unified kernel image (UAPI group
// specification UKI, section .linux); what is none is returned as it is.
func unifiedKernel(data []byte) []byte {
	f, err := pe.NewFile(bytes.NewReader(data))
	if err != nil {
		return data
	}
	section := f.Section(".linux")
	if section == nil {
		return data
	}
	kernel, err := section.Data()
	if err != nil {
		return data
	}
	if section.VirtualSize > 0 && int64(section.VirtualSize) < int64(len(kernel)) {
		kernel = kernel[:section.VirtualSize] // the file's is padded
	}
	return kernel
}

// hostKernel reads the kernel of a Linux from a file of this host. Its path is where
// a distribution would have it.
func hostKernel(linux fs.FS, file string) (Kernel, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return Kernel{}, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxKernel {
		return Kernel{}, fmt.Errorf("%s is no kernel", file)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return Kernel{}, err
	}
	data = unifiedKernel(data)
	release, err := parseBzImage(data)
	if err != nil {
		return Kernel{}, err
	}
	return Kernel{Release: release, Path: "boot/vmlinuz-" + release, Image: data, ModTime: fi.ModTime(), Modules: ModulesDir(linux, release)}, nil
}

// maxKernel bounds a kernel that is read from a file of this host, in bytes.
const maxKernel = 1 << 30

// parseBzImage reads the release from the head of an x86 kernel image; see
// Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
func parseBzImage(head []byte) (release string, err error) {
	const magicAt, versionAt, base, xloadflagsAt = 0x202, 0x20e, 0x200, 0x236
	if len(head) < xloadflagsAt+2 || string(head[magicAt:magicAt+4]) != "HdrS" {
		return "", errors.New("no x86 boot header")
	}
	if binary.LittleEndian.Uint16(head[xloadflagsAt:])&1 == 0 {
		return "", errors.New("it has no 64-bit entry point, VIVER's programs are amd64")
	}
	at := int(binary.LittleEndian.Uint16(head[versionAt:]))
	if at == 0 || base+at >= len(head) {
		return "", errors.New("its boot header names no version")
	}
	version := head[base+at:]
	if end := bytes.IndexByte(version, 0); end >= 0 {
		version = version[:end]
	}
	release, _, _ = strings.Cut(string(version), " ")
	if release == "" || strings.Contains(release, "/") || len(release) > 64 {
		return "", fmt.Errorf("its boot header has the version %q", release)
	}
	return release, nil
}

// compareReleases orders kernel releases by the numbers in them, so that 6.10
// is newer than 6.9.
func compareReleases(a, b string) int {
	for a != "" && b != "" {
		var x, y string
		x, a = releasePart(a)
		y, b = releasePart(b)
		if isDigit(x[0]) && isDigit(y[0]) {
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if c := cmp.Compare(len(x), len(y)); c != 0 {
				return c
			}
		}
		if c := cmp.Compare(x, y); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

// releasePart takes a run of digits or of other characters off s.
func releasePart(s string) (part, rest string) {
	digits := isDigit(s[0])
	end := strings.IndexFunc(s, func(r rune) bool { return (r >= '0' && r <= '9') != digits })
	if end < 0 {
		return s, ""
	}
	return s[:end], s[end:]
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
