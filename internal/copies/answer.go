package copies

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"time"

	"viver.lan/internal/identity"
)

// context keeps the digests of answers apart from all others.
const context = "viver copy of a piece v1"

// DigestSize is the size of an answer in bytes.
const DigestSize = sha256.Size

// NewDigest returns the digest of an answer; the caller writes the bytes of the
// piece to it. It begins with the nonce and the holder's identity, so another
// machine's answer is useless to the holder.
func NewDigest(nonce Nonce, holder identity.ID) hash.Hash {
	h := sha256.New()
	for _, part := range []string{context, string(nonce[:]), holder.String()} {
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
	// maxQueued bounds the waiting questions of one machine. More are dropped: our
	// nodes never have so many open.
	maxQueued = 4 * unanswered
)

// FairQueue holds questions that wait for an answer. Machines are served round robin,
// however many identities and connections they have, so that no machine delays the
// others. It is not safe for concurrent use.
type FairQueue[T any] struct {
	machines []*machineQueue[T] // the next one first
	pause    time.Duration      // nothing is answered before
}

type machineQueue[T any] struct {
	machine string
	waiting []T
	pause   time.Duration // not answered before
}

// Add takes a question of a machine; it returns false when that has too many
// waiting.
func (f *FairQueue[T]) Add(machine string, question T) bool {
	for _, q := range f.machines {
		if q.machine == machine {
			if len(q.waiting) >= maxQueued {
				return false
			}
			q.waiting = append(q.waiting, question)
			return true
		}
	}
	f.machines = append(f.machines, &machineQueue[T]{machine: machine, waiting: []T{question}})
	return true
}

// Next takes the question to answer next, a piece of so many bytes. When there is
// none yet it returns false and how long to wait, 0 for until one is added.
func (f *FairQueue[T]) Next(now time.Duration, size int64) (question T, wait time.Duration, ok bool) {
	span := func(rate int64) time.Duration { return time.Duration(size * int64(time.Second) / rate) }
	if now < f.pause {
		return question, f.pause - now, false
	}
	for n := 0; n < len(f.machines); n++ {
		q := f.machines[n]
		switch {
		case now < q.pause:
			if wait == 0 || q.pause-now < wait {
				wait = q.pause - now
			}
		case len(q.waiting) == 0: // its pause is over and it asks nothing
			f.machines = append(f.machines[:n], f.machines[n+1:]...)
			n--
		default:
			question, q.waiting = q.waiting[0], q.waiting[1:]
			f.machines = append(append(f.machines[:n], f.machines[n+1:]...), q)
			f.pause, q.pause = now+span(answerRate), now+span(machineRate)
			return question, 0, true
		}
	}
	return question, wait, false
}
