// Package nics is about the drivers of network cards as a file of an image (NICs in
// package manifest): a machine that says which card it boots from gets those parts of
// the file that the card needs.
//
// The file is a table, as a member of a plain archive, and behind it archives that are
// packed one by one; the kernel takes any number of them for an initramfs. The package
// does not choose modules (package bootfiles does) and reads no devices. The invariant:
// a card that the table does not know gets the whole file.
package nics

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"viver.lan/internal/newc"
)

// TableFile is the table's name in the file's first archive, and so in the initramfs of
// a machine that got any of it.
const TableFile = "etc/viver/nics.json"

// Bounds of what Read and Decode take: Debian's table has 17 KB and 70 archives.
const (
	maxTable    = 1 << 20 // bytes
	maxArchives = 4096
)

// Card is a network card on PCI, by the IDs of its vendor and of the device.
type Card struct{ Vendor, Device uint16 }

// String returns the IDs as lspci(8) does: 8086:100e.
func (c Card) String() string { return fmt.Sprintf("%04x:%04x", c.Vendor, c.Device) }

// ParseCard reads what String writes.
func ParseCard(s string) (Card, error) {
	var c Card
	if n, err := fmt.Sscanf(s, "%04x:%04x", &c.Vendor, &c.Device); n != 2 || err != nil || c.String() != s {
		return Card{}, fmt.Errorf("card %q: want two PCI IDs such as 8086:100e", s)
	}
	return c, nil
}

// MarshalText implements encoding.TextMarshaler.
func (c Card) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Card) UnmarshalText(text []byte) (err error) {
	*c, err = ParseCard(string(text))
	return err
}

// FromIPXE reads what iPXE tells of the card that it boots from, in hexadecimal digits:
// busid is its bus ID (a byte for the bus, 1 for PCI; then vendor and device), config the
// first four bytes in the configuration space of the PCI device at its place, as a number
// (device and vendor). The former is what the program in the card's ROM says of itself,
// the latter what Linux will see; ok is false if they are not about one card.
func FromIPXE(busid, config string) (c Card, ok bool) {
	id, err := hex.DecodeString(busid)
	space, err2 := hex.DecodeString(config)
	if err != nil || err2 != nil || len(id) != 5 || len(space) != 4 || id[0] != 1 {
		return Card{}, false
	}
	c = Card{Vendor: uint16(id[1])<<8 | uint16(id[2]), Device: uint16(id[3])<<8 | uint16(id[4])}
	seen := Card{Vendor: uint16(space[2])<<8 | uint16(space[3]), Device: uint16(space[0])<<8 | uint16(space[1])}
	return c, c == seen
}

// Table says what the archives of a file hold, and for which cards.
type Table struct {
	// Covered are cards that the initramfs has all drivers of.
	Covered []Card `json:"covered"`
	// Archives are all there are, in the order of the file.
	Archives []Archive `json:"archives"`
}

// Archive is a part of the file that is of use without the others.
type Archive struct {
	Size    int64    `json:"size"` // in bytes, as it is packed
	Modules []string `json:"modules"`
	Cards   []Card   `json:"cards,omitempty"` // that need it
	// NoUEFI says that no machine starts by UEFI from one of Cards.
	NoUEFI bool `json:"no-uefi,omitempty"`
}

// Encode returns the table as Decode reads it.
func (t *Table) Encode() ([]byte, error) {
	if err := t.validate(); err != nil {
		return nil, err
	}
	return json.Marshal(t)
}

// Decode reads a table.
func Decode(data []byte) (*Table, error) {
	if len(data) > maxTable {
		return nil, fmt.Errorf("table of network cards: %d bytes, want %d at most", len(data), maxTable)
	}
	var t Table
	if err := json.Unmarshal(data, &t); err != nil {
		return nil, fmt.Errorf("table of network cards: %w", err)
	}
	return &t, t.validate()
}

func (t *Table) validate() error {
	if len(t.Archives) > maxArchives {
		return fmt.Errorf("table of network cards: %d archives, want %d at most", len(t.Archives), maxArchives)
	}
	for _, a := range t.Archives {
		if a.Size <= 0 || a.Size > 1<<40 { // the sum of all is no more than an int64 holds
			return fmt.Errorf("table of network cards: an archive of %d bytes", a.Size)
		}
	}
	return nil
}

// Read reads the table that a file begins with.
func Read(file io.Reader) (*Table, error) {
	archive := newc.NewReader(io.LimitReader(file, 2*maxTable))
	for {
		m, err := archive.Next()
		switch {
		case err == io.EOF:
			return nil, errors.New("no table of network cards")
		case err != nil:
			return nil, fmt.Errorf("table of network cards: %w", err)
		case m.Name == TableFile:
			text, err := m.Bytes(maxTable)
			if err != nil {
				return nil, fmt.Errorf("table of network cards: %w", err)
			}
			return Decode(text)
		}
	}
}

// Span is a range of a file, in bytes.
type Span struct{ Offset, Length int64 }

// Head returns how many bytes of a file of that size come before the archives.
func (t *Table) Head(size int64) (int64, error) {
	head := size
	for _, a := range t.Archives {
		head -= a.Size
	}
	if head <= 0 {
		return 0, errors.New("table of network cards: the archives are longer than the file")
	}
	return head, nil
}

// Spans returns which parts of a file of that size a card needs: the head, which is not
// empty, and its archives. A card that is not known is an error.
func (t *Table) Spans(c Card, size int64) ([]Span, error) {
	forCard := func(a Archive) bool { return slices.Contains(a.Cards, c) }
	if !slices.Contains(t.Covered, c) && !slices.ContainsFunc(t.Archives, forCard) {
		return nil, fmt.Errorf("no driver of the image is for the card %s", c)
	}
	return t.spans(forCard, size)
}

// UEFI returns which parts a machine needs that started by UEFI from a card of which
// nothing else is known.
func (t *Table) UEFI(size int64) ([]Span, error) {
	return t.spans(func(a Archive) bool { return !a.NoUEFI }, size)
}

func (t *Table) spans(needed func(Archive) bool, size int64) ([]Span, error) {
	at, err := t.Head(size)
	if err != nil {
		return nil, err
	}
	spans := []Span{{0, at}}
	for _, a := range t.Archives {
		if needed(a) {
			spans = append(spans, Span{at, a.Size})
		}
		at += a.Size
	}
	return spans, nil
}

// Holds reports whether one of the archives has a module, by its name with underscores.
func (t *Table) Holds(module string) bool {
	return slices.ContainsFunc(t.Archives, func(a Archive) bool { return slices.Contains(a.Modules, module) })
}
