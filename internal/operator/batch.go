package operator

import (
	"errors"
	"fmt"
)

// Batch is what one node passes on to others: overrides, and the sender's name,
// which is not verified.
type Batch struct {
	Sender    string // 1 to 64 printable ASCII characters
	Overrides []Override
}

// maxSender bounds a sender's name, in bytes.
const maxSender = 64

// MaxBatch is the size of the largest batch, in bytes.
const MaxBatch = 1 + maxSender + MaxOverrides*MaxSize

var errSender = errors.New("no sender's name in front")

// Append appends the encoding of b: length and bytes of the name, the overrides.
func (b Batch) Append(to []byte) []byte {
	to = append(append(to, byte(len(b.Sender))), b.Sender...)
	return AppendAll(to, b.Overrides)
}

// ParseBatch reads a batch. Of one that is damaged it returns what comes before the
// damage, and the error.
func ParseBatch(data []byte) (b Batch, err error) {
	if len(data) == 0 {
		return b, errSender
	}
	n, rest := int(data[0]), data[1:]
	if n == 0 || n > maxSender || n > len(rest) || !printable(string(rest[:n])) {
		return b, fmt.Errorf("%w: %d bytes of %d", errSender, n, len(rest))
	}
	b.Sender = string(rest[:n])
	b.Overrides, err = ParseAll(rest[n:], MaxOverrides)
	return b, err
}
