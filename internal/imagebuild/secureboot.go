package imagebuild

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Boot programs, by their names in the payload.
const (
	biosProgram = "undionly.kpxe"
	shimProgram = "shimx64.efi"
	grubProgram = "grubx64.efi" // the name that shim looks for
	keysProgram = "mmx64.efi"   // likewise: MokManager, which takes an owner's own keys
)

// bootPrograms are the files of the payload's boot directory that VIVER brings,
// in order.
var bootPrograms = []string{biosProgram, shimProgram, grubProgram, keysProgram}

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
	names, err := issuers(program)
	if err != nil {
		return false
	}
	known := vendorCertificates(p.shim)
	return slices.ContainsFunc(names, func(name []byte) bool { return bytes.Contains(known, name) })
}

// fits reports whether the pair can be a medium's and a boot host's: these have
// GRUB's configuration at /grub, which is compiled into a GRUB for the network.
func (p bootPair) fits() bool {
	return p.trusts(p.grub) && bytes.Contains(p.grub, []byte("\x00/grub\x00"))
}

// files names the pair's programs as the payload does.
func (p bootPair) files() map[string][]byte {
	files := map[string][]byte{shimProgram: p.shim, grubProgram: p.grub}
	if p.keys != nil {
		files[keysProgram] = p.keys
	}
	return files
}

// choosePair returns the pair for a kernel: Debian's, which VIVER brings and
// tests, else the tree's own. When neither trusts the kernel it is Debian's
// still, which boots anything while Secure Boot is off.
func (c Config) choosePair(t *Tree, k Kernel, kernel []byte) (bootPair, error) {
	debian, err := c.ownPair()
	if err != nil || debian.trusts(kernel) {
		return debian, err
	}
	const only = "this image boots without Secure Boot only"
	names, err := issuers(kernel)
	if err != nil || len(names) == 0 {
		t.note("kernel %s is not signed: %s", k.Release, only)
		return debian, nil
	}
	by := commonName(names[0])
	for _, p := range t.bootPairs() {
		if p.trusts(kernel) && p.fits() {
			t.note("kernel %s is signed by %s: the image has the boot programs of %s, because Debian's do not trust it", k.Release, by, p.from)
			return p, nil
		}
	}
	t.note("kernel %s is signed by %s, which Debian's boot programs do not trust, and the tree has none for the network that do (shim-signed and grubnetx64.efi.signed): %s", k.Release, by, only)
	return debian, nil
}

// ownPair reads the pair that VIVER brings.
func (c Config) ownPair() (p bootPair, err error) {
	p.from = "Debian"
	for name, data := range map[string]*[]byte{shimProgram: &p.shim, grubProgram: &p.grub, keysProgram: &p.keys} {
		if *data, err = os.ReadFile(filepath.Join(c.Lib, BootPrograms, name)); err != nil {
			return bootPair{}, err
		}
	}
	return p, nil
}

// bootPairs finds the pairs in a tree: those of the packages, as Debian and its
// descendants have them, and those in the EFI system partition.
func (t *Tree) bootPairs() []bootPair {
	const packages, partition = "usr/lib/shim", "boot/efi/EFI"
	var pairs []bootPair
	keys := t.firstFile(packages, "mmx64.efi.signed", "mmx64.efi")
	grub := t.firstFile("usr/lib/grub/x86_64-efi-signed", "grubnetx64.efi.signed")
	// Ubuntu has more than one generation.
	for _, name := range t.list(packages) {
		if strings.HasPrefix(name, shimProgram+".") && grub != nil {
			pairs = append(pairs, bootPair{"/" + packages, t.firstFile(packages, name), grub, keys})
		}
	}
	for _, vendor := range t.list(partition) {
		dir := path.Join(partition, vendor)
		shim, grub := t.firstFile(dir, shimProgram), t.firstFile(dir, "grubnetx64.efi", grubProgram)
		if shim != nil && grub != nil {
			pairs = append(pairs, bootPair{"/" + dir, shim, grub, t.firstFile(dir, keysProgram)})
		}
	}
	return pairs
}

// firstFile returns the content of the first of the names that is in dir, nil
// when none can be read.
func (t *Tree) firstFile(dir string, names ...string) []byte {
	for _, name := range names {
		if data, err := t.readFile(path.Join(dir, name)); err == nil {
			return data
		}
	}
	return nil
}

// writePrograms writes the image's boot directory.
func (c Config) writePrograms(t *Tree, k Kernel, kernel []byte, dir string) error {
	pair, err := c.choosePair(t, k, kernel)
	if err != nil {
		return err
	}
	files := pair.files()
	if files[biosProgram], err = os.ReadFile(filepath.Join(c.Lib, BootPrograms, biosProgram)); err != nil {
		return err
	}
	for name, data := range files {
		if err := copyTo(filepath.Join(dir, name), bytes.NewReader(data)); err != nil {
			return fmt.Errorf("boot program %s: %w", name, err)
		}
	}
	return nil
}
