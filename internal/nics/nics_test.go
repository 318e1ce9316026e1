package nics

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
)

var (
	e1000  = Card{0x8086, 0x100e}
	igb    = Card{0x8086, 0x1521}
	virtio = Card{0x1af4, 0x1000}
)

func example() *Table {
	return &Table{
		Covered: []Card{virtio},
		Archives: []Archive{
			{Size: 100, Modules: []string{"dca"}, Cards: []Card{igb}},
			{Size: 20, Modules: []string{"e1000"}, Cards: []Card{e1000}, NoUEFI: true},
			{Size: 3, Modules: []string{"r8152"}},
			{Size: 4000, Modules: []string{"igb", "i2c_algo_bit"}, Cards: []Card{igb}},
		},
	}
}

// file is a file with the members named, each of the given text.
func file(t testing.TB, members ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := cpio.Newc.Writer(&b)
	var records []cpio.Record
	for i := 0; i < len(members); i += 2 {
		records = append(records, cpio.StaticFile(members[i], members[i+1], 0o644))
	}
	if err := cpio.WriteRecords(w, records); err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSpans(t *testing.T) {
	text, err := example().Encode()
	if err != nil {
		t.Fatal(err)
	}
	const head = 1536
	size := int64(head + 100 + 20 + 3 + 4000)
	table, err := Read(bytes.NewReader(file(t, "etc", "", TableFile, string(text))))
	if err != nil {
		t.Fatal(err)
	}
	for card, want := range map[Card][]Span{
		virtio: {{0, head}},
		e1000:  {{0, head}, {head + 100, 20}},
		igb:    {{0, head}, {head, 100}, {head + 123, 4000}},
	} {
		if got, err := table.Spans(card, size); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", card, got, err, want)
		}
	}
	if got, err := table.UEFI(size); err != nil || !slices.Equal(got, []Span{{0, head}, {head, 100}, {head + 120, 3}, {head + 123, 4000}}) {
		t.Errorf("for UEFI: %v, %v", got, err)
	}
	for name, ask := range map[string]func() ([]Span, error){
		"no driver of the image": func() ([]Span, error) { return table.Spans(Card{0x8086, 0x1234}, size) },
		"longer than the file":   func() ([]Span, error) { return table.UEFI(size - head) },
	} {
		if got, err := ask(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, %v; want %q", got, err, name)
		}
	}
	if !table.Holds("i2c_algo_bit") || !table.Holds("r8152") || table.Holds("ext4") {
		t.Error("the table does not tell its modules")
	}
}

func TestReadRefuses(t *testing.T) {
	good, err := example().Encode()
	if err != nil {
		t.Fatal(err)
	}
	whole := file(t, TableFile, string(good))
	for name, data := range map[string][]byte{
		"no table":       file(t, "etc/other", "x"),
		"ends too early": whole[:len(whole)/2],
		"070701":         []byte(strings.Repeat("no archive ", 50)),
		"of -1 bytes":    file(t, TableFile, `{"archives":[{"size":-1}]}`),
		"of 0 bytes":     file(t, TableFile, `{"archives":[{"size":0}]}`),
		"two PCI IDs":    file(t, TableFile, `{"covered":["8086:100E"]}`),
		"archives, want": file(t, TableFile, `{"archives":[`+strings.Repeat(`{"size":1},`, maxArchives)+`{"size":1}]}`),
		"JSON":           file(t, TableFile, `{`),
		"at most":        file(t, TableFile, strings.Repeat(" ", maxTable+1)),
	} {
		if _, err := Read(bytes.NewReader(data)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v; want %q", err, name)
		}
	}
}

func TestFromIPXE(t *testing.T) {
	for _, tt := range []struct {
		busid, config string
		want          Card
		ok            bool
	}{
		{"018086100e", "100e8086", e1000, true},
		{"018086100E", "100E8086", e1000, true},
		{"018086100e", "", Card{}, false},         // an iPXE that cannot read PCI's registers
		{"018086100e", "15218086", Card{}, false}, // a ROM that speaks of another card
		{"0a8086100e", "100e8086", Card{}, false}, // not on PCI
		{"01:80:86:10:0e", "100e8086", Card{}, false},
		{"018086100e00", "100e8086", Card{}, false},
		{"", "", Card{}, false},
		{"${netX/busid:hexraw}", "${pci}", Card{}, false},
	} {
		if got, ok := FromIPXE(tt.busid, tt.config); ok != tt.ok || ok && got != tt.want {
			t.Errorf("FromIPXE(%q, %q) = %v, %v; want %v, %v", tt.busid, tt.config, got, ok, tt.want, tt.ok)
		}
	}
}

// FuzzRead reads what anybody may have made: it gives a table whose parts lie in the
// file, or an error.
func FuzzRead(f *testing.F) {
	text, err := example().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file(f, TableFile, string(text)), int64(9000), "018086100e", "100e8086")
	f.Add(file(f, TableFile, `{"archives":[{"size":9223372036854775807,"cards":["8086:100e"]}]}`), int64(1), "01", "8680")
	f.Fuzz(func(t *testing.T, data []byte, size int64, busid, config string) {
		card, _ := FromIPXE(busid, config)
		table, err := Read(bytes.NewReader(data))
		if err != nil {
			return
		}
		spans, err := table.Spans(card, size)
		if err != nil {
			if spans, err = table.UEFI(size); err != nil {
				return
			}
		}
		var at int64
		for _, s := range spans {
			if s.Offset < at || s.Length <= 0 || s.Offset+s.Length > size {
				t.Fatalf("%v of %d bytes", spans, size)
			}
			at = s.Offset + s.Length
		}
		again, err := table.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(again); err != nil {
			t.Fatalf("what was read cannot be: %v", err)
		}
	})
}
