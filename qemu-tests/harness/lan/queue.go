package lan

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// queue is a bounded FIFO of framed bytes. Two buffers alternate: one fills
// while the port's sender writes the other one. While the sender has nothing
// to do, whoever queued a frame writes it without waiting: on a busy host
// waking a second thread would cost more than all else here.
type queue struct {
	direct syscall.RawConn // nil: only the sender writes

	mu      sync.Mutex
	wake    *sync.Cond
	filling []byte
	spare   []byte
	sending bool // the sender has a batch or is about to take one
	closed  bool
}

func (q *queue) push(framed []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.filling)+len(framed) > queueSize {
		return false
	}
	q.filling = append(q.filling, framed...)
	return true
}

// flush sends what is queued on its way.
func (q *queue) flush() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.sending || q.closed || len(q.filling) == 0 {
		return
	}
	if q.direct != nil {
		n := 0
		// An error shows again when the sender writes.
		_ = q.direct.Write(func(fd uintptr) bool {
			n, _ = unix.Write(int(fd), q.filling)
			return true
		})
		q.filling = q.filling[:copy(q.filling, q.filling[max(n, 0):])]
		if len(q.filling) == 0 {
			return
		}
	}
	q.sending = true
	q.wake.Signal()
}

// take waits for frames and returns all of them; nil means closed. The result
// is valid until the next call.
func (q *queue) take() []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.sending = len(q.filling) > 0
	for !q.sending && !q.closed {
		q.wake.Wait()
	}
	if q.closed {
		return nil
	}
	batch := q.filling
	q.filling, q.spare = q.spare[:0], batch
	return batch
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake.Broadcast()
}
