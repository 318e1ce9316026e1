package testlinux

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"testing"
)

// UEFIProgram makes a UEFI program of data, whose first bytes become its
// headers, with a section of vendor certificates, if any, and signatures.
func UEFIProgram(t testing.TB, data string, vendor []byte, signatures ...[]byte) string {
	t.Helper()
	const headersAt, headers = 0x40, 4 + 20 + 240 + 40
	var section pe.SectionHeader32
	copy(section.Name[:], "/4") // a long name is in the string table
	section.VirtualSize, section.SizeOfRawData, section.PointerToRawData = uint32(len(vendor)), uint32(len(vendor)), uint32(len(data))
	body := append([]byte(data), vendor...)
	names := len(body)
	body = append(body, "\x11\x00\x00\x00.vendor_cert\x00"...)
	body = append(body, make([]byte, -len(body)&7)...)
	optional := pe.OptionalHeader64{Magic: 0x20b, Subsystem: pe.IMAGE_SUBSYSTEM_EFI_APPLICATION, NumberOfRvaAndSizes: 16}
	certificates := &optional.DataDirectory[pe.IMAGE_DIRECTORY_ENTRY_SECURITY]
	certificates.VirtualAddress = uint32(len(body))
	for _, s := range signatures {
		body = binary.LittleEndian.AppendUint32(body, uint32(8+len(s)))
		body = append(body, 0, 2, 2, 0) // revision 2.0, PKCS #7
		body = append(body, s...)
		body = append(body, make([]byte, -len(body)&7)...)
	}
	certificates.Size = uint32(len(body)) - certificates.VirtualAddress
	var head bytes.Buffer
	head.WriteString("PE\x00\x00")
	for _, part := range []any{
		pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: 1, PointerToSymbolTable: uint32(names), SizeOfOptionalHeader: 240},
		optional, section,
	} {
		if err := binary.Write(&head, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	if head.Len() != headers {
		t.Fatalf("headers of %d bytes, want %d", head.Len(), headers)
	}
	copy(body, "MZ")
	body[0x3c] = headersAt
	copy(body[headersAt:], head.Bytes())
	return string(body)
}

// UnifiedKernel is a UEFI program with a kernel in a section of it.
func UnifiedKernel(t testing.TB, kernel []byte) string {
	t.Helper()
	const headers, dosHeader, optionalHeader = 1024, 64, 240
	var b bytes.Buffer
	b.WriteString("MZ")
	b.Write(make([]byte, dosHeader-6))
	section := pe.SectionHeader32{VirtualSize: uint32(len(kernel)), SizeOfRawData: uint32(len(kernel) + 100), PointerToRawData: headers}
	copy(section.Name[:], ".linux")
	for _, part := range []any{
		uint32(dosHeader), []byte("PE\x00\x00"),
		pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: 1, SizeOfOptionalHeader: optionalHeader},
		pe.OptionalHeader64{Magic: 0x20b, NumberOfRvaAndSizes: 16}, section,
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	b.Write(make([]byte, headers-b.Len()))
	b.Write(kernel)
	b.Write(make([]byte, 100))
	return b.String()
}
