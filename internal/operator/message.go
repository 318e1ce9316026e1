package operator

import (
	"errors"
	"fmt"

	"viver.lan/internal/identity"
)

// Message is what one node passes on to others: entries behind the ID of who sends
// them, which is no more than what the sender says.
type Message struct {
	Sender  identity.ID
	Entries []Entry
}

// MaxMessage is the most that a message of all entries takes, in bytes.
const MaxMessage = 1 + identity.IDSize + MaxEntries*MaxSize

var errSender = errors.New("no sender's ID in front")

// Append appends the encoding of m: length and text of the ID, the entries.
func (m Message) Append(b []byte) []byte {
	b = append(append(b, identity.IDSize), m.Sender.String()...)
	return AppendAll(b, m.Entries)
}

// ParseMessage reads a message. Of one that is damaged it returns what comes
// before the damage, and the error.
func ParseMessage(b []byte) (m Message, err error) {
	if len(b) < 1+identity.IDSize || b[0] != identity.IDSize {
		return m, errSender
	}
	id, rest := b[1:1+identity.IDSize], b[1+identity.IDSize:]
	if m.Sender, err = identity.ParseID(string(id)); err != nil {
		return m, fmt.Errorf("%w: %w", errSender, err)
	}
	m.Entries, err = ParseAll(rest, MaxEntries)
	return m, err
}
