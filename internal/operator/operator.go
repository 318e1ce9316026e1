// Package operator has the overrides that the operator of a network sets for its
// machines: small signed records, of which each node has a table.
//
// It has their encoding, and decides which of two is newer. Package cluster sends
// them, package sign checks signatures. It is no database: a few hundred overrides
// of a few hundred bytes, in the memory of the nodes that are on. The invariant: what
// is in a Table was signed by the owner, and is never replaced by something older.
package operator

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"viver.lan/internal/ether"
)

// Bounds on overrides, in bytes, and on their number. An override fits into one
// datagram.
const (
	MaxOverrides = 512
	maxNetwork   = 32
	maxKey       = 64
	maxValue     = 256
	maxSignature = 512
	// MaxSize is the size of the largest encoded override.
	MaxSize = 8 + 8 + 1 + maxNetwork + 1 + maxKey + 2 + maxValue + 2 + maxSignature
)

// SavedFile is where a saved-data disk has overrides: of all networks that it was in.
const SavedFile = "entries"

// Override is one setting, signed by the owner.
type Override struct {
	Key   string `json:"key"`   // what it sets, e.g. NameOf a machine
	Value string `json:"value"` // "" takes the override back
	// Network is the name of the network that it is for.
	Network string `json:"network"`
	// Sequence orders the overrides of one key: the greatest is used. By convention
	// it is one more than the greatest that the network knew.
	Sequence uint64 `json:"sequence"`
	// Time is when it was written, in nanoseconds since 1970 by the clock of the
	// operator's computer. Of two with the same sequence the later one is used.
	Time      uint64 `json:"time"`
	Signature []byte `json:"signature"` // of SignedBytes, by the owner's key
}

const (
	namePrefix    = "name/"
	addressPrefix = "ip/"
	labelPrefix   = "label/"
	rolePrefix    = "role/"
)

// NameOf is the key of the name that the operator gave to the machine with this
// MAC address.
func NameOf(mac ether.MAC) string { return namePrefix + mac.String() }

// AddressOf is the key of the IPv4 address that the operator gave to the machine
// with this MAC address.
func AddressOf(mac ether.MAC) string { return addressPrefix + mac.String() }

// LabelsOf is the key of the labels that the operator gave to the machine with this MAC
// address, with commas between.
func LabelsOf(mac ether.MAC) string { return labelPrefix + mac.String() }

// PinOf is the key of the machines that shall hold a role, which is called RUNE/ROLE:
// MAC addresses with commas between.
func PinOf(role string) string { return rolePrefix + role }

// Check says what is wrong with an override, apart from its signature.
func (e Override) Check() error {
	switch {
	case e.Key == "" || len(e.Key) > maxKey || !printable(e.Key):
		return fmt.Errorf("override %q: want a key of up to %d printable ASCII characters", e.Key, maxKey)
	case len(e.Value) > maxValue || !printable(e.Value):
		return fmt.Errorf("override %s: want a value of up to %d printable ASCII characters, found %q", e.Key, maxValue, e.Value)
	case e.Network == "" || len(e.Network) > maxNetwork || !printable(e.Network):
		return fmt.Errorf("override %s: want a network's name of up to %d printable ASCII characters, found %q", e.Key, maxNetwork, e.Network)
	case e.Sequence == 0:
		return fmt.Errorf("override %s: it has no sequence number", e.Key)
	case len(e.Signature) > maxSignature:
		return fmt.Errorf("override %s: its signature has %d bytes, want up to %d", e.Key, len(e.Signature), maxSignature)
	}
	return nil
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// SignedBytes is what the signature is of: all of the override but the signature.
// Different overrides have different ones.
func (e Override) SignedBytes() []byte {
	b := binary.BigEndian.AppendUint64(nil, e.Sequence)
	b = binary.BigEndian.AppendUint64(b, e.Time)
	b = append(append(b, byte(len(e.Network))), e.Network...)
	b = append(append(b, byte(len(e.Key))), e.Key...)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(e.Value))), e.Value...)
}

// Append appends the encoding of e, which has passed Check: the signed bytes, then
// the length and the bytes of the signature.
func (e Override) Append(b []byte) []byte {
	b = append(b, e.SignedBytes()...)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(e.Signature))), e.Signature...)
}

var errShort = errors.New("an override that is cut off")

// Parse reads one override and returns what follows it.
func Parse(b []byte) (e Override, rest []byte, err error) {
	take := func(n int) []byte {
		if err != nil || len(b) < n {
			err = errShort
			return nil
		}
		part := b[:n]
		b = b[n:]
		return part
	}
	number := func(size int) (n uint64) {
		for _, digit := range take(size) {
			n = n<<8 | uint64(digit)
		}
		return n
	}
	e.Sequence, e.Time = number(8), number(8)
	e.Network = string(take(int(number(1))))
	e.Key = string(take(int(number(1))))
	e.Value = string(take(int(number(2))))
	e.Signature = bytes.Clone(take(int(number(2))))
	if err == nil {
		err = e.Check()
	}
	if err != nil {
		return Override{}, nil, err
	}
	return e, b, nil
}

// AppendAll appends the encodings of overrides, one after the other.
func AppendAll(b []byte, overrides []Override) []byte {
	for _, e := range overrides {
		b = e.Append(b)
	}
	return b
}

// ParseAll reads what AppendAll wrote, limit overrides at most. If some are damaged
// or too many it returns those before, and an error.
func ParseAll(b []byte, limit int) (overrides []Override, err error) {
	for len(b) > 0 && len(overrides) < limit {
		e, rest, err := Parse(b)
		if err != nil {
			return overrides, err
		}
		overrides, b = append(overrides, e), rest
	}
	if len(b) > 0 {
		return overrides, fmt.Errorf("more than %d overrides", limit)
	}
	return overrides, nil
}

// Table is a node's set of overrides. The zero value is empty. It is not safe for
// concurrent use.
type Table struct {
	// Network is the name of the node's network: overrides for other networks are
	// refused, and all are while it is "".
	Network string

	overrides map[string]Override
}

// Errors of Accept for which the node that passed the override on is not to blame.
var (
	ErrKnown = errors.New("known already")
	ErrOlder = errors.New("older than the one that is used")
	// ErrNetwork: it comes from a node of another network, or was recorded there.
	ErrNetwork = errors.New("it is for another network")
)

// Accept takes an override, which is used from now on. verify checks a signature; it
// is called last, because it costs the most.
func (t *Table) Accept(e Override, verify func(message, signature []byte) error) error {
	if err := e.Check(); err != nil {
		return err
	}
	if e.Network != t.Network {
		return fmt.Errorf("override %s: %w: for %s, this is %s", e.Key, ErrNetwork, e.Network, cmp.Or(t.Network, "one without a name yet"))
	}
	message := e.SignedBytes()
	old, ok := t.overrides[e.Key]
	if ok {
		// Of two with the same sequence and time all nodes choose the same one.
		switch c := cmp.Or(cmp.Compare(e.Sequence, old.Sequence), cmp.Compare(e.Time, old.Time), bytes.Compare(message, old.SignedBytes())); {
		case c == 0:
			return ErrKnown
		case c < 0:
			return fmt.Errorf("override %s: %w", e.Key, ErrOlder)
		}
	}
	if err := verify(message, e.Signature); err != nil {
		return fmt.Errorf("override %s: %w", e.Key, err)
	}
	if !ok && len(t.overrides) >= MaxOverrides {
		return fmt.Errorf("override %s: there are %d already", e.Key, MaxOverrides)
	}
	if t.overrides == nil {
		t.overrides = make(map[string]Override)
	}
	t.overrides[e.Key] = e
	return nil
}

// Overrides returns all overrides in the order of their keys, those taken back
// included.
func (t *Table) Overrides() []Override {
	return slices.SortedFunc(maps.Values(t.overrides), func(a, b Override) int { return cmp.Compare(a.Key, b.Key) })
}

// Value returns the value of key, "" when none is set.
func (t *Table) Value(key string) string { return t.overrides[key].Value }
