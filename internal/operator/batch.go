package operator

import (
	"errors"
	"fmt"

	"viver.lan/internal/identity"
)

// Batch is what one node passes on to others: overrides, and the sender's ID, which
// is not verified.
type Batch struct {
	Sender    identity.ID
	Overrides []Override
}

// MaxBatch is the size of the largest batch, in bytes.
const MaxBatch = 1 + identity.IDSize + MaxOverrides*MaxSize

var errSender = errors.New("no sender's ID in front")

// Append appends the encoding of b: length and text of the ID, the overrides.
func (b Batch) Append(to []byte) []byte {
	to = append(append(to, identity.IDSize), b.Sender[:]...)
	return AppendAll(to, b.Overrides)
}

// ParseBatch reads a batch. Of one that is damaged it returns what comes before the
// damage, and the error.
func ParseBatch(data []byte) (b Batch, err error) {
	if len(data) < 1+identity.IDSize || data[0] != identity.IDSize {
		return b, errSender
	}
	id, rest := data[1:1+identity.IDSize], data[1+identity.IDSize:]
	if b.Sender, err = identity.ParseID(string(id)); err != nil {
		return b, fmt.Errorf("%w: %w", errSender, err)
	}
	b.Overrides, err = ParseAll(rest, MaxOverrides)
	return b, err
}
