package nbd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"viver.lan/internal/contain"
)

// errDisconnect ends a session whose client disconnected.
var errDisconnect = errors.New("client disconnected")

// Serve runs the transmission phase on conn until the peer disconnects (nil),
// hangs up or breaks the protocol (an error), or ctx ends (its cause). Reads
// are handed to b concurrently and answered in the order in which they finish.
// Serve closes conn and returns when no call to b is left.
func Serve(ctx context.Context, conn net.Conn, b Backend, o Options) error {
	o = o.withDefaults()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Closing is the only thing that ends a blocked read or write.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	s := &session{
		conn:    conn,
		backend: b,
		size:    b.Size(),
		options: o,
		fail:    cancel,
		slots:   make(chan struct{}, o.MaxRequests),
		bytes:   semaphore.NewWeighted(o.MaxBytes),
	}
	err := s.receive(ctx)
	if errors.Is(err, errDisconnect) {
		s.drain(ctx)
		err = nil
	} else if cause := context.Cause(ctx); cause != nil {
		err = cause // the reason, not the closed connection that it caused
	}
	cancel(err)
	conn.Close()
	s.reads.Wait()
	if err != nil {
		return fmt.Errorf("serve nbd: %w", err)
	}
	return nil
}

// session is one connection in its transmission phase.
type session struct {
	conn    net.Conn
	backend Backend
	size    int64
	options Options
	fail    context.CancelCauseFunc // ends the session from a read's goroutine

	slots   chan struct{}       // one per request in flight
	bytes   *semaphore.Weighted // bytes of buffers in use; first come, first served
	reads   sync.WaitGroup
	buffers buffers
	writing sync.Mutex // one reply at a time
}

// receive takes requests off the connection until it ends.
func (s *session) receive(ctx context.Context) error {
	in := bufio.NewReaderSize(s.conn, 16<<10)
	var header [requestSize]byte
	for {
		if _, err := io.ReadFull(in, header[:]); err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		r, err := parseRequest(header)
		if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		switch do, e := judge(r, s.size); do {
		case read:
			if in.Buffered() == 0 && s.readHere(r) {
				continue
			}
			select {
			case s.slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			arrived := time.Now()
			s.reads.Go(func() {
				defer func() { <-s.slots }()
				defer contain.Recover(s.options.Log, "nbd read", s.fail)
				s.read(ctx, r, arrived)
			})
		case disconnect:
			return errDisconnect
		case hangUp:
			return fmt.Errorf("a write of %d bytes to a read-only volume", r.length)
		default:
			if do == discard {
				if _, err := io.CopyN(io.Discard, in, int64(r.length)); err != nil {
					return fmt.Errorf("skip the data of a write: %w", err)
				}
			}
			if e == einval {
				s.options.Log.Warn("nbd request refused", "command", r.command, "flags", r.flags, "offset", r.offset, "length", r.length, "size", s.size)
			}
			s.answer(r, e)
		}
	}
}

// readHere answers a read of what can be had without waiting, and reports whether it did.
func (s *session) readHere(r request) (answered bool) {
	weight := int64(r.length)
	if s.options.Here == nil || !s.bytes.TryAcquire(weight) {
		return false
	}
	defer s.bytes.Release(weight)
	var arrived time.Time
	if s.options.Observe != nil { // the time costs a system call where the TSC is not stable
		arrived = time.Now()
	}
	buf := s.buffers.get(int(r.length))
	defer s.buffers.put(buf)
	defer contain.Recover(s.options.Log, "nbd read", s.fail)
	answered = true // also by the session's end, if what follows panics
	if !s.options.Here((*buf)[headroom:], int64(r.offset)) {
		return false
	}
	s.write(putDataReply(*buf, r, s.options.Structured))
	s.observe(r, arrived)
	return true
}

// read has the backend fill a buffer and answers with it.
func (s *session) read(ctx context.Context, r request, arrived time.Time) {
	weight := min(int64(r.length), s.options.MaxBytes)
	slow := s.watch(r, arrived)
	defer slow()
	if s.bytes.Acquire(ctx, weight) != nil {
		return // the session is over; nobody waits for an answer
	}
	defer s.bytes.Release(weight)
	if large := s.options.large; large != nil && int64(r.length) > s.options.MaxBytes {
		if large.Acquire(ctx, int64(r.length)) != nil {
			return
		}
		defer large.Release(int64(r.length))
	}
	buf := s.buffers.get(int(r.length))
	defer s.buffers.put(buf)

	if err := s.backend.ReadAt(ctx, (*buf)[headroom:], int64(r.offset)); err != nil {
		if ctx.Err() != nil {
			return
		}
		s.options.Log.Error("backend cannot read, answering EIO", "offset", r.offset, "length", r.length, "error", err)
		s.answer(r, eio)
		return
	}
	s.write(putDataReply(*buf, r, s.options.Structured))
	s.observe(r, arrived)
}

func (s *session) observe(r request, arrived time.Time) {
	if s.options.Observe != nil {
		s.options.Observe(int(r.length), time.Since(arrived))
	}
}

// watch logs a read that waits too long, and how it ended. The function
// returned ends the watch.
func (s *session) watch(r request, arrived time.Time) (end func()) {
	say := func(what string) {
		s.options.Log.Warn(what, "offset", r.offset, "length", r.length, "age", time.Since(arrived).Round(time.Millisecond))
	}
	timer := time.AfterFunc(s.options.SlowAfter, func() { say("block read still waits") })
	return func() {
		if !timer.Stop() {
			say("slow block read is over")
		}
	}
}

// answer sends a reply without data.
func (s *session) answer(r request, e errno) {
	s.write(errorReply(r, e, s.options.Structured))
}

// write sends one whole reply, or ends the session: after half a reply the
// stream is of no use.
func (s *session) write(reply []byte) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.options.WriteTimeout > 0 {
		if err := s.conn.SetWriteDeadline(time.Now().Add(s.options.WriteTimeout)); err != nil {
			s.fail(fmt.Errorf("write reply: %w", err))
			return
		}
	}
	if _, err := s.conn.Write(reply); err != nil {
		s.fail(fmt.Errorf("write reply: %w", err))
	}
}

// drain waits until what is in flight has been answered, for a while.
func (s *session) drain(ctx context.Context) {
	limit := time.NewTimer(s.options.DrainTimeout)
	defer limit.Stop()
	for range cap(s.slots) { // holding every slot means no request holds one
		select {
		case s.slots <- struct{}{}:
		case <-limit.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
