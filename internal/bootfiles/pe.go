package bootfiles

import (
	"bytes"
	"crypto/x509/pkix"
	"debug/pe"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cryptobyteasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// errSignature says that a program's signatures are none.
var errSignature = errors.New("its signature cannot be read")

// issuers returns who vouches for a UEFI program, and a kernel is one: for each
// of its signatures the name of the authority, in DER. Nothing is verified,
// which is the firmware's business; the names say whom it will ask.
func issuers(program []byte) ([][]byte, error) {
	f, err := pe.NewFile(bytes.NewReader(program))
	if err != nil {
		return nil, fmt.Errorf("not a UEFI program: %w", err)
	}
	header, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return nil, errors.New("not a UEFI program for amd64")
	}
	// Unlike any other directory this one gives a place in the file.
	table := header.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY]
	if uint64(table.VirtualAddress)+uint64(table.Size) > uint64(len(program)) {
		return nil, errSignature
	}
	const headSize, pkcs7 = 8, 2 // of WIN_CERTIFICATE, and its type of a PKCS #7
	var names [][]byte
	for rest := program[table.VirtualAddress:][:table.Size]; len(rest) > headSize; {
		size := uint64(binary.LittleEndian.Uint32(rest))
		if size < headSize || size > uint64(len(rest)) {
			return nil, errSignature
		}
		if binary.LittleEndian.Uint16(rest[6:]) == pkcs7 {
			name, err := issuer(rest[headSize:size])
			if err != nil {
				return nil, err
			}
			names = append(names, name)
		}
		rest = rest[min((size+7)&^7, uint64(len(rest))):]
	}
	return names, nil
}

// issuer returns the name of who issued the certificate that a PKCS #7
// signature was made with (RFC 2315, 9.1).
func issuer(signature []byte) ([]byte, error) {
	const set = cryptobyteasn1.SET
	const sequence = cryptobyteasn1.SEQUENCE
	optional := func(n uint8) cryptobyteasn1.Tag { return cryptobyteasn1.Tag(n).ContextSpecific().Constructed() }
	input := cryptobyte.String(signature)
	var info, content, data, signers, signer, id, name cryptobyte.String
	ok := input.ReadASN1(&info, sequence) &&
		info.SkipASN1(cryptobyteasn1.OBJECT_IDENTIFIER) && info.ReadASN1(&content, optional(0)) &&
		content.ReadASN1(&data, sequence) &&
		data.SkipASN1(cryptobyteasn1.INTEGER) && data.SkipASN1(set) && data.SkipASN1(sequence) &&
		data.SkipOptionalASN1(optional(0)) && data.SkipOptionalASN1(optional(1)) &&
		data.ReadASN1(&signers, set) && signers.ReadASN1(&signer, sequence) &&
		signer.SkipASN1(cryptobyteasn1.INTEGER) && signer.ReadASN1(&id, sequence) &&
		id.ReadASN1Element(&name, sequence)
	if !ok {
		return nil, errSignature
	}
	return name, nil
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
