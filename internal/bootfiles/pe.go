package bootfiles

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"debug/pe"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// errSignature says that a program's signatures are none.
var errSignature = errors.New("its signature cannot be read")

// authorities are the names, in DER, of who issued a signer's certificate, of who
// issued that one's, and so on, as far as the signature has their certificates.
type authorities [][]byte

// String names them for people.
func (a authorities) String() string {
	names := make([]string, len(a))
	for i, name := range a {
		names[i] = commonName(name)
	}
	return strings.Join(names, ", ")
}

// uefiProgram reads the headers of a UEFI program for amd64.
func uefiProgram(program []byte) (*pe.OptionalHeader64, error) {
	f, err := pe.NewFile(bytes.NewReader(program))
	if err != nil {
		return nil, fmt.Errorf("not a UEFI program: %w", err)
	}
	header, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok || f.Machine != pe.IMAGE_FILE_MACHINE_AMD64 {
		return nil, errors.New("not a UEFI program for amd64")
	}
	if header.Subsystem != pe.IMAGE_SUBSYSTEM_EFI_APPLICATION {
		return nil, errors.New("not a UEFI program that firmware starts")
	}
	return header, nil
}

// signatures returns who vouches for a UEFI program, and a kernel is one: the
// authorities behind each of its signatures. Nothing is verified, which is the
// firmware's business; the names say whom it will ask.
func signatures(program []byte) ([]authorities, error) {
	header, err := uefiProgram(program)
	if err != nil {
		return nil, err
	}
	// Unlike any other directory this one gives a place in the file.
	table := header.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY]
	if uint64(table.VirtualAddress)+uint64(table.Size) > uint64(len(program)) {
		return nil, errSignature
	}
	const headSize, pkcs7 = 8, 2 // of WIN_CERTIFICATE, and its type of a PKCS #7
	var found []authorities
	for rest := program[table.VirtualAddress:][:table.Size]; len(rest) > headSize; {
		size := uint64(binary.LittleEndian.Uint32(rest))
		if size < headSize || size > uint64(len(rest)) {
			return nil, errSignature
		}
		if binary.LittleEndian.Uint16(rest[6:]) == pkcs7 {
			a, err := authoritiesOf(rest[headSize:size])
			if err != nil {
				return nil, err
			}
			found = append(found, a)
		}
		rest = rest[min((size+7)&^7, uint64(len(rest))):]
	}
	return found, nil
}

// authoritiesOf reads a PKCS #7 signature (RFC 2315, 9.1).
func authoritiesOf(signature []byte) (authorities, error) {
	const set = cryptobyteasn1.SET
	const sequence = cryptobyteasn1.SEQUENCE
	optional := func(n uint8) cryptobyteasn1.Tag { return cryptobyteasn1.Tag(n).ContextSpecific().Constructed() }
	input := cryptobyte.String(signature)
	var info, content, data, certificates, signers, signer, id, name cryptobyte.String
	var brings bool
	ok := input.ReadASN1(&info, sequence) &&
		info.SkipASN1(cryptobyteasn1.OBJECT_IDENTIFIER) && info.ReadASN1(&content, optional(0)) &&
		content.ReadASN1(&data, sequence) &&
		data.SkipASN1(cryptobyteasn1.INTEGER) && data.SkipASN1(set) && data.SkipASN1(sequence) &&
		data.ReadOptionalASN1(&certificates, &brings, optional(0)) && data.SkipOptionalASN1(optional(1)) &&
		data.ReadASN1(&signers, set) && signers.ReadASN1(&signer, sequence) &&
		signer.SkipASN1(cryptobyteasn1.INTEGER) && signer.ReadASN1(&id, sequence) &&
		id.ReadASN1Element(&name, sequence)
	if !ok {
		return nil, errSignature
	}
	return issuers(name, certificates), nil
}

// issuers follows an authority's name through certificates that stand one behind the
// other. One that cannot be read, or was used, is none.
func issuers(name []byte, certificates cryptobyte.String) authorities {
	var known []*x509.Certificate
	for one := (cryptobyte.String)(nil); certificates.ReadASN1Element(&one, cryptobyteasn1.SEQUENCE); {
		if c, err := x509.ParseCertificate(one); err == nil {
			known = append(known, c)
		}
	}
	names := authorities{name}
	for {
		i := slices.IndexFunc(known, func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, name) })
		if i < 0 {
			return names
		}
		if name = known[i].RawIssuer; !bytes.Equal(name, names[len(names)-1]) {
			names = append(names, name)
		}
		known = slices.Delete(known, i, i+1)
	}
}

// commonName makes an authority's name readable.
func commonName(name []byte) string {
	var names pkix.RDNSequence
	if _, err := asn1.Unmarshal(name, &names); err != nil {
		return "somebody whose name cannot be read"
	}
	var n pkix.Name
	n.FillFromRDNSequence(&names)
	if n.CommonName == "" {
		return names.String()
	}
	return n.CommonName
}

// vendorCertificates returns the certificates that a shim trusts besides the
// firmware's. They are in a section of their own (shim's cert.S), before those
// that it must never trust: size of both, then offset of both.
func vendorCertificates(shim []byte) []byte {
	f, err := pe.NewFile(bytes.NewReader(shim))
	if err != nil {
		return nil
	}
	section := f.Section(".vendor_cert")
	if section == nil {
		return nil
	}
	data, err := section.Data()
	if err != nil || len(data) < 16 {
		return nil
	}
	size, at := uint64(binary.LittleEndian.Uint32(data)), uint64(binary.LittleEndian.Uint32(data[8:]))
	if at+size > uint64(len(data)) {
		return nil
	}
	return data[at : at+size]
}
