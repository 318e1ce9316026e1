package bootfiles

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/testlinux"
)

// testSignature reads what Debian 13 has in its kernel, GRUB or shim, and gives
// it another maker's name of the same length.
func testSignature(t testing.TB, name, maker string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.ReplaceAll(data, []byte("Debian Secure Boot CA"), []byte(maker+" Secure Boot CA"))
}

// pairOf makes a shim and a GRUB for the network.
func pairOf(t testing.TB, maker string) (shim, grub string) {
	space := strings.Repeat("\x00", 0x200)
	return testlinux.UEFIProgram(t, space+"shim of "+maker, testSignature(t, "debian-shim.vendor_cert", maker)),
		testlinux.UEFIProgram(t, space+"GRUB of "+maker+"\x00/grub\x00", nil, testSignature(t, "debian-grub.p7", maker))
}

// ownPrograms is a directory with the boot programs that VIVER brings.
func ownPrograms(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(testlinux.Lib(t), "boot")
	shim, grub := pairOf(t, "Debian")
	for name, data := range map[string]string{Shim: shim, GRUB: grub} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestWritePrograms(t *testing.T) {
	kernelOf := func(makers ...string) testlinux.File {
		var signatures [][]byte
		for _, m := range makers {
			signatures = append(signatures, testSignature(t, "debian-kernel.p7", m))
		}
		return testlinux.File{Name: "boot/vmlinuz-" + testlinux.Release, Data: testlinux.UEFIProgram(t, string(testlinux.Kernel(testlinux.Release)), nil, signatures...)}
	}
	shim, grub := pairOf(t, "Fedora")
	const packages, signed, partition = "usr/lib/shim/", "usr/lib/grub/x86_64-efi-signed/", "boot/efi/EFI/fedora/"
	installed := []testlinux.File{{Name: packages + "shimx64.efi.signed", Data: shim}, {Name: packages + "mmx64.efi", Data: "keys"}, {Name: signed + "grubnetx64.efi.signed", Data: grub}}
	const only = "this image boots without Secure Boot only"
	for _, c := range []struct {
		name  string
		files []testlinux.File
		maker string // of the programs in the image
		keys  bool
		note  string
	}{
		{"Debian", []testlinux.File{kernelOf("Debian")}, "Debian", true, ""},
		{"Debian, among the pair of another", append(installed, kernelOf("Debian")), "Debian", true, ""},
		{"two signatures", []testlinux.File{kernelOf("Fedora", "Debian")}, "Debian", true, ""},
		{"packages of the tree", append(installed, kernelOf("Fedora")), "Fedora", true, "the boot programs of /usr/lib/shim"},
		{"its EFI system partition", []testlinux.File{kernelOf("Fedora"), {Name: partition + Shim, Data: shim}, {Name: partition + GRUB, Data: grub}}, "Fedora", false, "the boot programs of /boot/efi/EFI/fedora"},
		{"a GRUB for disks", []testlinux.File{kernelOf("Fedora"), {Name: partition + Shim, Data: shim},
			{Name: partition + GRUB, Data: strings.ReplaceAll(grub, "/grub\x00", "/disk\x00")}}, "Debian", true, only},
		{"shim alone", []testlinux.File{kernelOf("Fedora"), {Name: packages + "shimx64.efi.signed", Data: shim}}, "Debian", true, "signed by Fedora Secure Boot CA, which"},
		{"a pair that trusts somebody else", append(installed, kernelOf("Ubuntu")), "Debian", true, only},
		{"not signed", append(installed, kernelOf()), "Debian", true, "not signed: " + only},
		{"no UEFI program", append(installed, testlinux.File{Name: "boot/vmlinuz-" + testlinux.Release, Data: string(testlinux.Kernel(testlinux.Release))}), "Debian", true, "not signed: " + only},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, linux := t.TempDir(), testlinux.FS(testlinux.Change(testlinux.Files(t), c.files...))
			note, err := WritePrograms(linux, Kernel{Release: testlinux.Release, Path: "boot/vmlinuz-" + testlinux.Release}, ownPrograms(t), dir)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]string{Shim: "shim of " + c.maker, GRUB: "GRUB of " + c.maker} {
				if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Contains(data, []byte(want)) {
					t.Errorf("%s is not the %s: %v", name, want, err)
				}
			}
			if _, err := os.Stat(filepath.Join(dir, MokManager)); (err == nil) != c.keys {
				t.Errorf("a program for keys: %v, want %v", err == nil, c.keys)
			}
			if !strings.Contains(note, c.note) || (c.note == "") != (note == "") {
				t.Errorf("note %q, want %q", note, c.note)
			}
		})
	}
}

func FuzzSignatures(f *testing.F) {
	shim, grub := pairOf(f, "Debian")
	f.Add([]byte(shim))
	f.Add([]byte(grub))
	f.Add([]byte(grub)[:len(grub)-1500])
	f.Add([]byte(testlinux.UEFIProgram(f, strings.Repeat("\x00", 0x200), nil, testFile(f, "example-chain.p7"))))
	f.Fuzz(func(t *testing.T, program []byte) {
		signed, err := signatures(program)
		if err != nil && signed != nil {
			t.Errorf("%d signatures, and %v", len(signed), err)
		}
		for _, a := range signed {
			if len(a) == 0 {
				t.Error("a signature by nobody")
			}
			_ = a.String()
		}
		vendorCertificates(program)
	})
}
