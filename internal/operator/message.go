package operator

import (
	"errors"
	"fmt"
)

// Message is what one node passes on to others: entries behind the name of who
// sends them, which is no more than what the sender says.
type Message struct {
	Sender  string // up to 64 printable ASCII characters, at least one
	Entries []Entry
}

// maxSender bounds a sender's name, in bytes.
const maxSender = 64

// MaxMessage is the most that a message of all entries takes, in bytes.
const MaxMessage = 1 + maxSender + MaxEntries*MaxSize

var errSender = errors.New("no sender's name in front")

// Append appends the encoding of m: length and bytes of the name, the entries.
func (m Message) Append(b []byte) []byte {
	b = append(append(b, byte(len(m.Sender))), m.Sender...)
	return AppendAll(b, m.Entries)
}

// ParseMessage reads a message. Of one that is damaged it returns what comes
// before the damage, and the error.
func ParseMessage(b []byte) (m Message, err error) {
	if len(b) == 0 {
		return m, errSender
	}
	n, rest := int(b[0]), b[1:]
	if n == 0 || n > maxSender || n > len(rest) || !printable(string(rest[:n])) {
		return m, fmt.Errorf("%w: %d bytes of %d", errSender, n, len(rest))
	}
	m.Sender = string(rest[:n])
	m.Entries, err = ParseAll(rest[n:], MaxEntries)
	return m, err
}
