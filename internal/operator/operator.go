// Package operator holds the words that the operator of a network says to all
// of its nodes: small signed entries, of which each node keeps a table.
//
// It is their encoding and the decision which of two counts; how they travel is
// the business of package cluster, who signed them that of package sign. It is
// no database: a few hundred entries of a few hundred bytes, kept in memory by
// the nodes that are on. The invariant: what is in a Table was signed by the
// owner, and is never replaced by something older.
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

// Bounds on entries, in bytes, and on their number. An entry fits into one
// datagram.
const (
	MaxEntries   = 512
	maxNetwork   = 32
	maxKey       = 64
	maxValue     = 256
	maxSignature = 512
	// MaxSize is the most that an encoded entry takes.
	MaxSize = 8 + 8 + 1 + maxNetwork + 1 + maxKey + 2 + maxValue + 2 + maxSignature
)

// Entry is one word of the operator.
type Entry struct {
	Key   string `json:"key"`   // what it is about, e.g. NameOf a machine
	Value string `json:"value"` // "" takes the word back
	// Network is the name of the one network that it is for.
	Network string `json:"network"`
	// Sequence orders the entries of one key: the greater one counts. By
	// convention it is one more than the greatest that the network knew.
	Sequence uint64 `json:"sequence"`
	// Time is when it was written, in nanoseconds since 1970 by the clock of the
	// operator's desk. Of two with one sequence the later one counts.
	Time      uint64 `json:"time"`
	Signature []byte `json:"signature"` // of Message, by the owner's key
}

const (
	namePrefix    = "name/"
	addressPrefix = "ip/"
)

// NameOf is the key of the name that the operator gave to the machine with this
// MAC address.
func NameOf(mac ether.MAC) string { return namePrefix + mac.String() }

// AddressOf is the key of the IPv4 address that the operator gave to the machine
// with this MAC address.
func AddressOf(mac ether.MAC) string { return addressPrefix + mac.String() }

// Check says what is wrong with an entry, apart from its signature.
func (e Entry) Check() error {
	switch {
	case e.Key == "" || len(e.Key) > maxKey || !printable(e.Key):
		return fmt.Errorf("entry %q: want a key of up to %d printable ASCII characters", e.Key, maxKey)
	case len(e.Value) > maxValue || !printable(e.Value):
		return fmt.Errorf("entry %s: want a value of up to %d printable ASCII characters, found %q", e.Key, maxValue, e.Value)
	case e.Network == "" || len(e.Network) > maxNetwork || !printable(e.Network):
		return fmt.Errorf("entry %s: want a network's name of up to %d printable ASCII characters, found %q", e.Key, maxNetwork, e.Network)
	case e.Sequence == 0:
		return fmt.Errorf("entry %s: it has no sequence number", e.Key)
	case len(e.Signature) > maxSignature:
		return fmt.Errorf("entry %s: its signature has %d bytes, want up to %d", e.Key, len(e.Signature), maxSignature)
	}
	return nil
}

func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// Message is what the signature is of: all of the entry but the signature.
// Different entries have different messages.
func (e Entry) Message() []byte {
	b := binary.BigEndian.AppendUint64(nil, e.Sequence)
	b = binary.BigEndian.AppendUint64(b, e.Time)
	b = append(append(b, byte(len(e.Network))), e.Network...)
	b = append(append(b, byte(len(e.Key))), e.Key...)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(e.Value))), e.Value...)
}

// Append appends the encoding of e, which has passed Check: the message, then
// the length and the bytes of the signature.
func (e Entry) Append(b []byte) []byte {
	b = append(b, e.Message()...)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(e.Signature))), e.Signature...)
}

var errShort = errors.New("an entry that is cut off")

// Parse reads one entry and returns what follows it.
func Parse(b []byte) (e Entry, rest []byte, err error) {
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
		return Entry{}, nil, err
	}
	return e, b, nil
}

// AppendAll appends the encodings of entries, one after the other.
func AppendAll(b []byte, entries []Entry) []byte {
	for _, e := range entries {
		b = e.Append(b)
	}
	return b
}

// ParseAll reads what AppendAll wrote, so many entries at most. Of what is damaged
// or too much it returns the entries before that, and why there are no more.
func ParseAll(b []byte, most int) (entries []Entry, err error) {
	for len(b) > 0 && len(entries) < most {
		e, rest, err := Parse(b)
		if err != nil {
			return entries, err
		}
		entries, b = append(entries, e), rest
	}
	if len(b) > 0 {
		return entries, fmt.Errorf("more than %d entries", most)
	}
	return entries, nil
}

// Table is a node's set of entries. The zero value is empty. Its methods are
// for one goroutine at a time.
type Table struct {
	// Network is the name of the network that the node is on: entries for others
	// are refused, and all are while it is "".
	Network string

	entries map[string]Entry
}

// Errors of Accept that say nothing against whoever passed the entry on.
var (
	ErrKnown = errors.New("known already")
	ErrOlder = errors.New("older than the entry that counts")
	// ErrNetwork: what is for another network is passed on by those who are on
	// that, or by somebody who has recorded it there.
	ErrNetwork = errors.New("it is for another network")
)

// Accept takes an entry that counts from now on. verify checks the signature of
// a message; it is asked last, because it costs the most.
func (t *Table) Accept(e Entry, verify func(message, signature []byte) error) error {
	if err := e.Check(); err != nil {
		return err
	}
	if e.Network != t.Network {
		return fmt.Errorf("entry %s: %w: for %s, this is %s", e.Key, ErrNetwork, e.Network, cmp.Or(t.Network, "one without a name yet"))
	}
	message := e.Message()
	old, ok := t.entries[e.Key]
	if ok {
		// Of two with one number one is chosen, by all nodes the same.
		switch c := cmp.Or(cmp.Compare(e.Sequence, old.Sequence), cmp.Compare(e.Time, old.Time), bytes.Compare(message, old.Message())); {
		case c == 0:
			return ErrKnown
		case c < 0:
			return fmt.Errorf("entry %s: %w", e.Key, ErrOlder)
		}
	}
	if err := verify(message, e.Signature); err != nil {
		return fmt.Errorf("entry %s: %w", e.Key, err)
	}
	if !ok && len(t.entries) >= MaxEntries {
		return fmt.Errorf("entry %s: there are %d already", e.Key, MaxEntries)
	}
	if t.entries == nil {
		t.entries = make(map[string]Entry)
	}
	t.entries[e.Key] = e
	return nil
}

// Entries returns all entries in the order of their keys, those taken back
// included.
func (t *Table) Entries() []Entry {
	return slices.SortedFunc(maps.Values(t.entries), func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
}

// Value returns what is said of key, "" for nothing.
func (t *Table) Value(key string) string { return t.entries[key].Value }
