package bootfiles

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Boot programs, by their names in the payload's boot directory.
const (
	biosProgram = "undionly.kpxe"
	Shim        = "shimx64.efi"
	GRUB        = "grubx64.efi" // the name that shim looks for
	MokManager  = "mmx64.efi"   // likewise; takes an owner's own keys
)

// Programs are the boot programs that VIVER brings.
func Programs() []string { return []string{biosProgram, Shim, GRUB, MokManager} }

// Names are all boot programs that an image may have, in the payload's order.
func Names() []string { return append(Programs(), IPXEShim, IPXE) }

// bootPair is what starts a kernel under UEFI: shim, which Microsoft signed,
// and the GRUB that it starts. With Secure Boot on both ask shim about whatever
// they start, so the pair must be one that knows who signed the kernel.
type bootPair struct {
	from       string // for people
	shim, grub []byte
	keys       []byte // nil when there is none
}

// trusts reports whether the pair's shim knows who signed a program.
func (p bootPair) trusts(program []byte) bool {
	return Trusts(p.shim, program)
}

// Trusts reports whether a shim knows an authority behind a program's signatures.
func Trusts(shim, program []byte) bool {
	signed, err := signatures(program)
	if err != nil {
		return false
	}
	known := vendorCertificates(shim)
	return slices.ContainsFunc(slices.Concat(signed...), func(name []byte) bool { return bytes.Contains(known, name) })
}

// isForNetwork reports whether the pair can be a medium's and a boot host's: these
// have GRUB's configuration at /grub, which is compiled into a GRUB for the
// network.
func (p bootPair) isForNetwork() bool {
	return p.trusts(p.grub) && bytes.Contains(p.grub, []byte("\x00/grub\x00"))
}

// files names the pair's programs as the payload does.
func (p bootPair) files() map[string][]byte {
	files := map[string][]byte{Shim: p.shim, GRUB: p.grub}
	if p.keys != nil {
		files[MokManager] = p.keys
	}
	return files
}

// choosePair returns the pair for a kernel, and what its owner should know of it:
// Debian's pair, which VIVER brings and tests, else the Linux's own. When neither
// trusts the kernel it is Debian's still, which boots anything while Secure Boot is
// off.
func choosePair(linux fs.FS, kernel []byte, debian bootPair) (p bootPair, note string) {
	const only = "this image boots without Secure Boot only"
	if debian.trusts(kernel) {
		return debian, ""
	}
	signed, err := signatures(kernel)
	if err != nil || len(signed) == 0 {
		return debian, "not signed: " + only
	}
	by := commonName(signed[0][0])
	for _, p := range bootPairs(linux) {
		if p.trusts(kernel) && p.isForNetwork() {
			return p, fmt.Sprintf("signed by %s: the image has the boot programs of %s, because Debian's do not trust it", by, p.from)
		}
	}
	return debian, fmt.Sprintf("signed by %s, which Debian's boot programs do not trust, and the tree has none for the network that do (shim-signed and grubnetx64.efi.signed): %s", by, only)
}

// readPair reads the pair that VIVER brings.
func readPair(dir string) (p bootPair, err error) {
	p.from = "Debian"
	for name, data := range map[string]*[]byte{Shim: &p.shim, GRUB: &p.grub, MokManager: &p.keys} {
		if *data, err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return bootPair{}, err
		}
	}
	return p, nil
}

// bootPairs finds the pairs in a Linux: those of the packages, as Debian and its
// descendants have them, and those in the EFI system partition.
func bootPairs(linux fs.FS) []bootPair {
	const packages, partition = "usr/lib/shim", "boot/efi/EFI"
	var pairs []bootPair
	keys := firstFile(linux, packages, "mmx64.efi.signed", "mmx64.efi")
	grub := firstFile(linux, "usr/lib/grub/x86_64-efi-signed", "grubnetx64.efi.signed")
	// Ubuntu has more than one generation.
	for _, name := range list(linux, packages) {
		if strings.HasPrefix(name, Shim+".") && grub != nil {
			pairs = append(pairs, bootPair{"/" + packages, firstFile(linux, packages, name), grub, keys})
		}
	}
	for _, vendor := range list(linux, partition) {
		dir := path.Join(partition, vendor)
		shim, grub := firstFile(linux, dir, Shim), firstFile(linux, dir, "grubnetx64.efi", GRUB)
		if shim != nil && grub != nil {
			pairs = append(pairs, bootPair{"/" + dir, shim, grub, firstFile(linux, dir, MokManager)})
		}
	}
	return pairs
}

// firstFile returns the content of the first of the names that is in dir, nil
// when none can be read.
func firstFile(linux fs.FS, dir string, names ...string) []byte {
	for _, name := range names {
		if data, err := fs.ReadFile(linux, path.Join(dir, name)); err == nil {
			return data
		}
	}
	return nil
}

// list returns the names in a directory, none when there is no such directory.
func list(linux fs.FS, dir string) (names []string) {
	entries, _ := fs.ReadDir(linux, dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// WritePrograms writes the boot programs for a kernel to the directory dir: those
// that VIVER brings, in the directory own, or the pair of the Linux that trusts the
// kernel. note is a sentence for people, "" when all is as usual.
func WritePrograms(linux fs.FS, k Kernel, own, dir string) (note string, err error) {
	kernel, err := k.Read(linux)
	if err != nil {
		return "", err
	}
	debian, err := readPair(own)
	if err != nil {
		return "", err
	}
	pair, note := choosePair(linux, kernel, debian)
	if note != "" {
		note = fmt.Sprintf("kernel %s is %s", k.Release, note)
	}
	files := pair.files()
	if files[biosProgram], err = os.ReadFile(filepath.Join(own, biosProgram)); err != nil {
		return "", err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return "", fmt.Errorf("boot program %s: %w", name, err)
		}
	}
	return note, nil
}
