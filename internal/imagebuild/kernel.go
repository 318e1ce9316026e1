package imagebuild

import (
	"archive/tar"
	"bytes"
	"cmp"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// Kernel is a bootable kernel found in a tree.
type Kernel struct {
	// Release is what uname -r will print.
	Release string
	// Path of the kernel image, below the root.
	Path string
}

// modulesDir returns the directory of the kernel's modules, below the root.
func (k Kernel) modulesDir() string { return "lib/modules/" + k.Release }

// kernelPlaces are where distributions put their kernels: in /boot under several
// names, beside the modules, with systemd-boot by machine and release, in a
// unified image of it, in the store of NixOS.
var kernelPlaces = []string{
	"boot/vmlinuz*", "boot/bzImage*", "boot/kernel-*",
	"lib/modules/*/vmlinuz",
	"boot/*/*/linux", "boot/efi/*/*/linux", "efi/*/*/linux",
	"boot/EFI/nixos/*bzImage.efi", "boot/kernels/*bzImage", "nix/store/*-linux-*/bzImage",
	"boot/EFI/Linux/*.efi", "boot/efi/EFI/Linux/*.efi", "efi/EFI/Linux/*.efi",
}

// kernels returns the tree's kernels, newest first, and what was taken for a
// kernel and is none.
func (t *Tree) kernels() (found []Kernel, problems []string) {
	seen := make(map[string]bool)
	for _, place := range kernelPlaces {
		for _, p := range t.glob(place) {
			if !t.isFile(p) {
				continue
			}
			release, err := t.kernelRelease(p)
			if err != nil {
				problems = append(problems, fmt.Sprintf("/%s is not a kernel that a PC can boot: %v", p, err))
				continue
			}
			if !seen[release] {
				seen[release] = true
				found = append(found, Kernel{Release: release, Path: p})
			}
		}
	}
	slices.SortFunc(found, func(a, b Kernel) int { return compareReleases(b.Release, a.Release) })
	return found, problems
}

// glob returns the names that match a pattern of path.Match.
func (t *Tree) glob(pattern string) []string {
	found := []string{"."}
	for _, part := range strings.Split(pattern, "/") {
		var next []string
		for _, dir := range found {
			if !strings.ContainsAny(part, "*?[") {
				next = append(next, path.Join(dir, part))
				continue
			}
			for _, name := range t.list(dir) {
				if ok, _ := path.Match(part, name); ok { // the patterns are ours
					next = append(next, path.Join(dir, name))
				}
			}
		}
		found = next
	}
	return found
}

func (t *Tree) kernelRelease(name string) (string, error) {
	if strings.HasSuffix(name, ".efi") {
		image, err := t.kernelImage(name)
		if err != nil {
			return "", err
		}
		return parseBzImage(image)
	}
	r, err := t.open(name)
	if err != nil {
		return "", err
	}
	defer r.Close()
	head := make([]byte, 64<<10)
	n, err := readUpTo(r, head)
	if err != nil {
		return "", err
	}
	return parseBzImage(head[:n])
}

// kernelImage reads a kernel; of a unified image only that part of it.
func (t *Tree) kernelImage(name string) ([]byte, error) {
	data, err := t.readFile(name)
	if err != nil || !strings.HasSuffix(name, ".efi") {
		return data, err
	}
	return unifiedKernel(data), nil
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

// addKernel takes a kernel from a file of this host into the tree, where the
// distribution would have it.
func (t *Tree) addKernel(file string) (Kernel, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return Kernel{}, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxRead {
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
	name := "boot/vmlinuz-" + release
	h := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: clampTime(fi.ModTime())}
	t.add(name, &entry{header: h, open: func() (*content, error) { return steady(h, bytes.NewReader(data)), nil }})
	slices.Sort(t.kids["boot"])
	return Kernel{Release: release, Path: name}, nil
}

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
