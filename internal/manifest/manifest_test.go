package manifest

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func sample() *Manifest {
	return &Manifest{
		Format: Format, Name: "tiny", Created: time.Unix(1_700_000_000, 0).UTC(), KernelRelease: "6.1.0",
		Arch: "amd64", PieceLength: 128 << 10, Infohash: Infohash{1, 2, 3},
		Files: []FileInfo{{Name: Root, Size: 4096}, {Name: Kernel, Size: 100}, {Name: "boot/shimx64.efi", Size: 7}},
	}
}

func TestRoundTrip(t *testing.T) {
	var b bytes.Buffer
	if err := sample().Write(&b); err != nil {
		t.Fatal(err)
	}
	m, err := Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	if m.Infohash != sample().Infohash || m.Size() != 4203 || m.RootFile().Name != Root || !m.Created.Equal(sample().Created) {
		t.Errorf("read back %+v", m)
	}
	f, off, ok := m.Lookup("boot/shimx64.efi")
	if !ok || off != 4196 || f.Size != 7 {
		t.Errorf("Lookup = %+v at %d, %v", f, off, ok)
	}
	if _, _, ok := m.Lookup("boot"); ok {
		t.Error("found a file that is none")
	}
}

// Images of earlier versions go on.
func TestOlderFormat(t *testing.T) {
	m := sample()
	m.Format = 1
	var b bytes.Buffer
	if err := m.Write(&b); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(&b); err != nil || got.Format != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// Of those of later ones it is said, whatever else is in them.
func TestLaterFormat(t *testing.T) {
	for _, text := range []string{`{"format":3}`, `{"format":99,"name":{},"files":"elsewhere"}`} {
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "a later VIVER built the image") {
			t.Errorf("of %s: %v", text, err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	tests := []struct {
		name, says string
		spoil      func(*Manifest)
	}{
		{"another format", "format 3", func(m *Manifest) { m.Format = Format + 1 }},
		{"no format", "format 0", func(m *Manifest) { m.Format = 0 }},
		{"no name", "no image name", func(m *Manifest) { m.Name = "" }},
		{"odd piece length", "power of two", func(m *Manifest) { m.PieceLength = 100_000 }},
		{"root not first", "first file", func(m *Manifest) { m.Files[0], m.Files[1] = m.Files[1], m.Files[0] }},
		{"no files", "first file", func(m *Manifest) { m.Files = nil }},
		{"path that leaves", "leaves", func(m *Manifest) { m.Files[1].Name = "../etc/passwd" }},
		{"absolute path", "leaves", func(m *Manifest) { m.Files[1].Name = "/vmlinuz" }},
		{"unclean path", "leaves", func(m *Manifest) { m.Files[1].Name = "boot//x" }},
		{"empty file", "size 0", func(m *Manifest) { m.Files[1].Size = 0 }},
		{"twice", "twice", func(m *Manifest) { m.Files[1].Name = Root }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := sample()
			tt.spoil(m)
			err := m.Write(new(bytes.Buffer))
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Write = %v, want an error with %q", err, tt.says)
			}
		})
	}
}

func TestReadIsBounded(t *testing.T) {
	endless := strings.NewReader(`{"name":"` + strings.Repeat("x", 2*maxSize))
	if _, err := Read(endless); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("Read = %v", err)
	}
}

func TestInfohashText(t *testing.T) {
	h := Infohash{0xab, 19: 0x01}
	back, err := ParseInfohash(h.String())
	if err != nil || back != h {
		t.Errorf("ParseInfohash(%s) = %s, %v", h, back, err)
	}
	for _, bad := range []string{"", "ab", strings.Repeat("g", 40), strings.Repeat("a", 41)} {
		if _, err := ParseInfohash(bad); err == nil {
			t.Errorf("ParseInfohash(%q) was accepted", bad)
		}
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := sample().Write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"format":1,"files":[{"name":"root.squashfs","size":-1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Read(bytes.NewReader(data))
		if err == nil && m.RootFile().Name != Root {
			t.Fatalf("accepted %+v", m)
		}
	})
}
