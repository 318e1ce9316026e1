package copies

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"time"
)

// context keeps the digests of answers apart from all others.
const context = "viver copy of a piece v1"

// DigestSize is the size of an answer in bytes.
const DigestSize = sha256.Size

// NewDigest returns the digest of an answer; the bytes of the piece are still to
// be written to it. It begins with the nonce and the identity of who holds the
// piece, so nobody else's answer is of any use to it.
func NewDigest(nonce Nonce, holder string) hash.Hash {
	h := sha256.New()
	for _, part := range []string{context, string(nonce[:]), holder} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write([]byte(part))
	}
	return h
}

// What answering may cost, in bytes of pieces per second: for each machine that
// asks, which is twice what one of ours asks for, and in all.
const (
	machineRate = 2 * askRate
	answerRate  = 8 * askRate
	// owed bounds the questions of one machine that wait. More are dropped:
	// none of ours has so many open.
	owed = 4 * unanswered
)

// Turns is the line of those who wait for an answer. Machines take turns, however
// many identities and connections they show, so nobody's questions keep those of
// others waiting. It is not safe for concurrent use.
type Turns[T any] struct {
	lines []*line[T] // the next one first
	rest  time.Duration
}

type line[T any] struct {
	machine string
	waiting []T
	rest    time.Duration // not answered before
}

// Add takes a question of a machine; it returns false when that has too many
// waiting.
func (t *Turns[T]) Add(machine string, question T) bool {
	for _, l := range t.lines {
		if l.machine == machine {
			if len(l.waiting) >= owed {
				return false
			}
			l.waiting = append(l.waiting, question)
			return true
		}
	}
	t.lines = append(t.lines, &line[T]{machine: machine, waiting: []T{question}})
	return true
}

// Next takes the question to answer next, a piece of so many bytes. When there is
// none yet it returns false and how long to wait, 0 for until one is added.
func (t *Turns[T]) Next(now time.Duration, size int64) (question T, wait time.Duration, ok bool) {
	span := func(rate int64) time.Duration { return time.Duration(size * int64(time.Second) / rate) }
	if now < t.rest {
		return question, t.rest - now, false
	}
	for n := 0; n < len(t.lines); n++ {
		l := t.lines[n]
		switch {
		case now < l.rest:
			if wait == 0 || l.rest-now < wait {
				wait = l.rest - now
			}
		case len(l.waiting) == 0: // it has rested and wants nothing
			t.lines = append(t.lines[:n], t.lines[n+1:]...)
			n--
		default:
			question, l.waiting = l.waiting[0], l.waiting[1:]
			t.lines = append(append(t.lines[:n], t.lines[n+1:]...), l)
			t.rest, l.rest = now+span(answerRate), now+span(machineRate)
			return question, 0, true
		}
	}
	return question, wait, false
}
