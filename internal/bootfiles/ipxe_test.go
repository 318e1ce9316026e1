package bootfiles

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/testlinux"
)

// vendorSection is what a shim has that trusts a certificate, as shim's cert.S lays it out.
func vendorSection(certificate []byte) []byte {
	const head = 16
	size := uint32(len(certificate))
	var data []byte
	for _, n := range []uint32{size, 0, head, head + size} { // nobody is barred
		data = binary.LittleEndian.AppendUint32(data, n)
	}
	return append(data, certificate...)
}

// ipxePrograms writes programs as iPXE's makers sign theirs, and some that are not. The
// signature is openssl's: of a signer whose authority it brings, and that one's
// authority is the one the shim trusts. The shim's is Microsoft's of Debian's shim.
func ipxePrograms(t testing.TB) (path func(name string) string) {
	space, loader := strings.Repeat("\x00", 0x200), string(wide("\\"+IPXE))
	chain, trusted := testFile(t, "example-chain.p7"), vendorSection(testFile(t, "example-ca.der"))
	microsoft := testFile(t, "debian-shim.p7")
	dir := t.TempDir()
	for name, data := range map[string]string{
		"unsigned.efi":      testlinux.UEFIProgram(t, space+"iPXE", nil),
		"snponly.efi":       testlinux.UEFIProgram(t, space+"iPXE", nil, chain),
		"broken.efi":        testlinux.UEFIProgram(t, space+"iPXE", nil, chain[:100]),
		"shim.efi":          testlinux.UEFIProgram(t, space+loader, trusted, microsoft),
		"unsigned-shim.efi": testlinux.UEFIProgram(t, space+loader, trusted),
		"other-shim.efi":    testlinux.UEFIProgram(t, space+loader, testFile(t, "debian-shim.vendor_cert"), microsoft),
		"grub-shim.efi":     testlinux.UEFIProgram(t, space+string(wide("\\"+GRUB)), trusted, microsoft),
		"arm64.efi":         strings.Replace(testlinux.UEFIProgram(t, space, nil), "PE\x00\x00\x64\x86", "PE\x00\x00\x64\xaa", 1),
		"driver.efi":        driver(t, space),
		"script.efi":        "#!ipxe\n",
		"huge.efi":          strings.Repeat("\x00", maxProgram+1),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return func(name string) string {
		if name == "" {
			return ""
		}
		return filepath.Join(dir, name)
	}
}

// driver is a UEFI driver, which firmware loads and does not boot.
func driver(t testing.TB, space string) string {
	const subsystem, application, driver = 0x40 + 4 + 20 + 68, 10, 11
	data := []byte(testlinux.UEFIProgram(t, space, nil))
	if data[subsystem] != application {
		t.Fatalf("subsystem %d", data[subsystem])
	}
	data[subsystem] = driver
	return string(data)
}

func testFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestUEFIiPXE(t *testing.T) {
	path := ipxePrograms(t)
	const by = "signed by Example Boot Intermediate, Example Boot CA"
	for _, c := range []struct {
		name, program, shim string
		notes               []string // parts of them, in order
	}{
		{"as its makers have it", "snponly.efi", "shim.efi", []string{by, "signed by Microsoft UEFI CA 2023"}},
		{"without a shim", "snponly.efi", "", []string{by, "snponly.efi is not signed by Microsoft"}},
		{"not signed at all", "unsigned.efi", "", []string{"unsigned.efi, not signed", "unsigned.efi is not signed by Microsoft"}},
		{"a shim that nobody signed", "snponly.efi", "unsigned-shim.efi", []string{by, "not signed", "unsigned-shim.efi is not signed by Microsoft"}},
		{"a shim of others", "snponly.efi", "other-shim.efi", []string{by, "Microsoft", "other-shim.efi trusts nobody who signed"}},
		{"an unsigned program behind a shim", "unsigned.efi", "shim.efi", []string{"not signed", "Microsoft", "shim.efi trusts nobody who signed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := ReadUEFIiPXE(path(c.program), path(c.shim))
			if err != nil {
				t.Fatal(err)
			}
			notes := p.Notes()
			if len(notes) != len(c.notes) {
				t.Fatalf("notes %q, want %d", notes, len(c.notes))
			}
			for i, want := range c.notes {
				if !strings.Contains(notes[i], want) || strings.HasPrefix(notes[i], "warning: ") != strings.Contains(notes[i], "Secure Boot") {
					t.Errorf("note %q, want %q", notes[i], want)
				}
			}
			dir := t.TempDir()
			if err := p.Write(dir); err != nil {
				t.Fatal(err)
			}
			for name, from := range map[string]string{IPXE: c.program, IPXEShim: c.shim} {
				want, _ := os.ReadFile(path(from))
				if got, _ := os.ReadFile(filepath.Join(dir, name)); !bytes.Equal(got, want) {
					t.Errorf("%s is not %q", name, from)
				}
			}
			if names := testlinux.Names(t, dir); slices.Contains(names, IPXEShim) != (c.shim != "") {
				t.Errorf("files %v", names)
			}
		})
	}
}

func TestNoUEFIiPXE(t *testing.T) {
	path := ipxePrograms(t)
	for _, c := range []struct{ program, shim, want string }{
		{"nowhere.efi", "", "--ipxe: open "},
		{"script.efi", "", "script.efi: not a UEFI program: "},
		{"arm64.efi", "", "arm64.efi: not a UEFI program for amd64"},
		{"driver.efi", "", "driver.efi: not a UEFI program that firmware starts"},
		{"huge.efi", "", "huge.efi: not a boot program: larger than 16 MiB"},
		{"broken.efi", "", "--ipxe: " + path("broken.efi") + ": its signature cannot be read"},
		{"shim.efi", "", "shim.efi is a shim, the program before iPXE: name it with --ipxe-shim"},
		{"snponly.efi", "nowhere.efi", "--ipxe-shim: open "},
		{"snponly.efi", "broken.efi", "--ipxe-shim: " + path("broken.efi") + " is no shim"},
		{"snponly.efi", "snponly.efi", "snponly.efi is no shim: it has no certificates to trust"},
		{"snponly.efi", "grub-shim.efi", "grub-shim.efi is the shim of another program than ipxe.efi"},
	} {
		p, err := ReadUEFIiPXE(path(c.program), path(c.shim))
		if p != nil || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s behind %q: error %v, want %q", c.program, c.shim, err, c.want)
		}
	}
}
