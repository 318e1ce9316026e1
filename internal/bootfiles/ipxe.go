package bootfiles

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf16"
)

// iPXE for UEFI is an owner's choice: a machine fetches less than with GRUB, but only
// the release of its makers is signed for Secure Boot, which no distribution has. Its
// shim removes "-shimx64" from its own name to get that of iPXE, and where the firmware
// does not tell it its name it takes "ipxe.efi" (github.com/ipxe/shim, shim.c). With
// these two names both ways lead to one program, whether its makers call it ipxe.efi or
// snponly.efi.
const (
	IPXE     = "ipxe.efi"
	IPXEShim = "ipxe-shimx64.efi"
)

// maxProgram is more than any boot program has, in bytes: iPXE with all drivers is 1 MB.
const maxProgram = 16 << 20

// UEFIiPXE is an iPXE that boots UEFI machines over the network in place of GRUB.
type UEFIiPXE struct {
	program, shim []byte // shim is nil when there is none
	notes         []string
}

// ReadUEFIiPXE reads the file of an iPXE and that of the shim in front of it, "" for
// none. The error says why they cannot be what they are given for.
func ReadUEFIiPXE(program, shim string) (*UEFIiPXE, error) {
	var p UEFIiPXE
	var err error
	if p.program, err = readProgram(program); err != nil {
		return nil, fmt.Errorf("--ipxe: %w", err)
	}
	if vendorCertificates(p.program) != nil {
		return nil, fmt.Errorf("--ipxe: %s is a shim, the program before iPXE: name it with --ipxe-shim", program)
	}
	if shim != "" {
		if p.shim, err = readProgram(shim); err == nil {
			err = checkIPXEShim(p.shim, shim)
		}
		if err != nil {
			return nil, fmt.Errorf("--ipxe-shim: %w", err)
		}
	}
	if p.notes, err = p.judge(program, shim); err != nil {
		return nil, err
	}
	return &p, nil
}

// readProgram reads a UEFI program for amd64.
func readProgram(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxProgram+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxProgram {
		return nil, fmt.Errorf("%s: not a boot program: larger than %d MiB", name, maxProgram>>20)
	}
	if _, err := uefiProgram(data); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}

// checkIPXEShim reports why a program is not the shim of iPXE: that of a distribution
// starts GRUB.
func checkIPXEShim(shim []byte, name string) error {
	if vendorCertificates(shim) == nil {
		return fmt.Errorf("%s is no shim: it has no certificates to trust", name)
	}
	if !bytes.Contains(shim, wide(IPXE)) {
		return fmt.Errorf("%s is the shim of another program than %s: take that of iPXE's makers", name, IPXE)
	}
	return nil
}

// wide is a text as UEFI programs have it.
func wide(text string) []byte {
	var data []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		data = binary.LittleEndian.AppendUint16(data, unit)
	}
	return data
}

// judge says who signed what, and warns of what Secure Boot will refuse.
func (p *UEFIiPXE) judge(program, shim string) (notes []string, err error) {
	signed, err := signatures(p.program)
	if err != nil {
		return nil, fmt.Errorf("--ipxe: %s: %w", program, err)
	}
	notes = append(notes, fmt.Sprintf("UEFI machines boot over the network by iPXE: %s, %s", program, signedBy(signed)))
	first, name := signed, program
	if p.shim != nil {
		if first, err = signatures(p.shim); err != nil {
			return nil, fmt.Errorf("--ipxe-shim: %s: %w", shim, err)
		}
		name = shim
		notes = append(notes, fmt.Sprintf("its shim: %s, %s", shim, signedBy(first)))
		if !Trusts(p.shim, p.program) {
			notes = append(notes, fmt.Sprintf("warning: %s trusts nobody who signed %s: %s", shim, program, refused))
		}
	}
	if !slices.ContainsFunc(slices.Concat(first...), isMicrosoft) {
		notes = append(notes, fmt.Sprintf("warning: %s is not signed by Microsoft, and most firmware trusts nobody else: unless theirs has its signer's certificate, %s", name, refused))
	}
	return notes, nil
}

// refused is what follows from a program that Secure Boot does not let pass.
const refused = "UEFI machines with Secure Boot on will not boot over the network; they do not try GRUB then"

// signedBy names who signed a program.
func signedBy(signed []authorities) string {
	if len(signed) == 0 {
		return "not signed"
	}
	names := make([]string, len(signed))
	for i, a := range signed {
		names[i] = a.String()
	}
	return "signed by " + strings.Join(names, "; ")
}

// isMicrosoft reports whether an authority is one of Microsoft's for the programs of
// others, which PCs are sold with.
func isMicrosoft(name []byte) bool {
	return slices.Contains([]string{"Microsoft Corporation UEFI CA 2011", "Microsoft UEFI CA 2023"}, commonName(name))
}

// Notes are sentences for people: who signed what, and what Secure Boot will refuse.
func (p *UEFIiPXE) Notes() []string { return p.notes }

// Write writes the programs to the directory dir, beside the others.
func (p *UEFIiPXE) Write(dir string) error {
	err := os.WriteFile(filepath.Join(dir, IPXE), p.program, 0o644)
	if p.shim != nil {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, IPXEShim), p.shim, 0o644))
	}
	return err
}
