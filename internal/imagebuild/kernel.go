package imagebuild

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
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

// kernels returns the tree's kernels, newest first, and what was taken for a
// kernel and is none.
func (t *Tree) kernels() (found []Kernel, problems []string) {
	var paths []string
	for _, name := range t.list("boot") {
		if strings.HasPrefix(name, "vmlinuz") || strings.HasPrefix(name, "kernel-") {
			paths = append(paths, "boot/"+name)
		}
	}
	for _, release := range t.list("lib/modules") {
		paths = append(paths, path.Join("lib/modules", release, "vmlinuz"))
	}
	seen := make(map[string]bool)
	for _, p := range paths {
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
	slices.SortFunc(found, func(a, b Kernel) int { return compareReleases(b.Release, a.Release) })
	return found, problems
}

func (t *Tree) kernelRelease(name string) (string, error) {
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
