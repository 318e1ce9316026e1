// Package lan is an Ethernet for virtual machines that needs no root: a
// learning switch in this process.
//
// Its ports carry frames over stream sockets, each frame after its length in
// four bytes, big endian, which is what QEMU's "-netdev stream" speaks. A port
// leads to a machine or to an Endpoint, a piece of test code that sends and
// receives raw frames. Whatever passes is written to a capture file. It is not
// a model of time: only a port's rate can be limited.
//
// The invariant: a slow or dead port never delays another one. Every queue is
// bounded, and a frame that finds its queue full is dropped and counted, as in
// a real switch.
package lan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

const (
	// MaxFrame is the longest frame that QEMU sends, in bytes.
	MaxFrame = 4096 + 65536
	// minFrame is an Ethernet header.
	minFrame = 14
	// queueSize bounds what waits for one port, in bytes.
	queueSize = 1 << 20
	// headerSize is the length before each frame on a stream.
	headerSize = 4
)

// ErrClosed says that the switch or the other end of a port is gone.
var ErrClosed = errors.New("the port is closed")

type mac [6]byte

// group tells broadcast and multicast addresses from those of one machine.
func (m mac) group() bool { return m[0]&1 == 1 }

// Switch is one Ethernet segment. The zero value is not usable; see New.
type Switch struct {
	capture *Capture // nil: nothing is recorded

	mu    sync.RWMutex
	ports map[*Port]bool
	table map[mac]*Port
	done  bool

	running sync.WaitGroup
}

// New returns a switch without ports. Frames that it accepts are recorded in
// capture, which may be nil; the caller closes it after the switch.
func New(capture *Capture) *Switch {
	return &Switch{capture: capture, ports: map[*Port]bool{}, table: map[mac]*Port{}}
}

// Close unplugs every port and waits for their goroutines.
func (s *Switch) Close() {
	s.mu.Lock()
	s.done = true
	ports := make([]*Port, 0, len(s.ports))
	for p := range s.ports {
		ports = append(ports, p)
	}
	s.mu.Unlock()
	for _, p := range ports {
		p.Close()
	}
	s.running.Wait()
}

// PortOptions describe the cable of a port.
type PortOptions struct {
	// BitsPerSecond limits each direction; 0 means as fast as it goes.
	BitsPerSecond float64
	// Mangle, when set, changes frames that the machine sends, in place.
	Mangle func(frame []byte)
}

// Port is a plug of the switch.
type Port struct {
	// Name says in messages which port it is.
	Name string

	sw       *Switch
	conn     io.ReadWriteCloser
	mangle   func(frame []byte) // may be nil
	in, out  *rate.Limiter      // nil: unlimited
	outgoing queue
	cut      atomic.Bool
	stats    counters
	stop     context.CancelFunc
}

// Stats counts what passed a port since it was plugged in, seen from the
// machine: Sent is what the machine sent.
type Stats struct {
	SentFrames, SentBytes         uint64
	ReceivedFrames, ReceivedBytes uint64
	// Dropped are frames for the machine that found its queue full.
	Dropped uint64
}

type counters struct {
	sentFrames, sentBytes, receivedFrames, receivedBytes, dropped atomic.Uint64
}

// Plug connects a stream that carries length-prefixed frames. The switch owns
// the connection from here on.
func (s *Switch) Plug(name string, conn io.ReadWriteCloser, opts PortOptions) (*Port, error) {
	ctx, stop := context.WithCancel(context.Background())
	p := &Port{Name: name, sw: s, conn: conn, mangle: opts.Mangle, stop: stop}
	p.outgoing.wake = sync.NewCond(&p.outgoing.mu)
	if opts.BitsPerSecond > 0 {
		p.in = limiter(opts.BitsPerSecond)
		p.out = limiter(opts.BitsPerSecond)
	} else if sc, ok := conn.(syscall.Conn); ok {
		// Without it the port only takes a little longer.
		p.outgoing.direct, _ = sc.SyscallConn()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		stop()
		conn.Close()
		return nil, fmt.Errorf("plug in %s: %w", name, ErrClosed)
	}
	s.ports[p] = true
	s.running.Add(2)
	go func() {
		defer s.running.Done()
		p.receive(ctx)
		p.Close()
	}()
	go func() {
		defer s.running.Done()
		p.send(ctx)
		p.Close()
	}()
	return p, nil
}

// limiter allows bursts of 10 ms, but never less than one frame.
func limiter(bitsPerSecond float64) *rate.Limiter {
	bytes := bitsPerSecond / 8
	return rate.NewLimiter(rate.Limit(bytes), max(int(bytes/100), MaxFrame))
}

// Close unplugs the port. What it learned is forgotten.
func (p *Port) Close() {
	s := p.sw
	s.mu.Lock()
	if s.ports[p] {
		delete(s.ports, p)
		for m, at := range s.table {
			if at == p {
				delete(s.table, m)
			}
		}
	}
	s.mu.Unlock()
	p.stop()
	p.outgoing.close()
	p.conn.Close()
}

// Cut (true) drops every frame from and to the port, as a broken cable whose
// machine does not notice; Cut(false) repairs it.
func (p *Port) Cut(cut bool) { p.cut.Store(cut) }

// Stats returns the port's counters.
func (p *Port) Stats() Stats {
	c := &p.stats
	return Stats{
		SentFrames: c.sentFrames.Load(), SentBytes: c.sentBytes.Load(),
		ReceivedFrames: c.receivedFrames.Load(), ReceivedBytes: c.receivedBytes.Load(),
		Dropped: c.dropped.Load(),
	}
}

// receive reads the machine's frames until its end closes. With a rate limit
// it reads no faster than that, so the machine's own queue fills.
func (p *Port) receive(ctx context.Context) {
	frames := newReader(p.conn)
	var reached []*Port
	for {
		frame, err := frames.next()
		if err != nil {
			return
		}
		if p.in != nil && p.in.WaitN(ctx, len(frame)-headerSize) != nil {
			return
		}
		if p.mangle != nil {
			p.mangle(frame[headerSize:])
		}
		p.stats.sentFrames.Add(1)
		p.stats.sentBytes.Add(uint64(len(frame) - headerSize))
		if !p.cut.Load() {
			reached = p.sw.forward(p, frame, reached)
		}
		if frames.whole() {
			continue // more frames came with this one and leave with it
		}
		for _, to := range reached {
			to.outgoing.flush()
		}
		reached = reached[:0]
	}
}

// forward queues a frame, its length prefix included, for the port that leads
// to its destination, or for all others while that is not known. It adds those
// ports to reached.
func (s *Switch) forward(from *Port, framed []byte, reached []*Port) []*Port {
	frame := framed[headerSize:]
	if len(frame) < minFrame {
		return reached
	}
	dst, src := mac(frame[:6]), mac(frame[6:12])
	if s.capture != nil {
		s.capture.record(frame)
	}
	s.mu.RLock()
	known := s.table[src] == from
	s.mu.RUnlock()
	if !known && !src.group() {
		s.learn(src, from)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if to := s.table[dst]; to != nil && !dst.group() {
		if to != from {
			reached = to.offer(framed, reached)
		}
		return reached
	}
	for to := range s.ports {
		if to != from {
			reached = to.offer(framed, reached)
		}
	}
	return reached
}

func (s *Switch) learn(m mac, p *Port) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ports[p] { // not unplugged meanwhile
		s.table[m] = p
	}
}

// offer queues a frame and adds the port to reached, if it is not there.
func (p *Port) offer(framed []byte, reached []*Port) []*Port {
	if p.cut.Load() {
		return reached
	}
	if !p.outgoing.push(framed) {
		p.stats.dropped.Add(1)
		return reached
	}
	p.stats.receivedFrames.Add(1)
	p.stats.receivedBytes.Add(uint64(len(framed) - headerSize))
	if slices.Contains(reached, p) {
		return reached
	}
	return append(reached, p)
}

// send writes what flush could not: many frames at once, or at most a burst at
// a time when the rate is limited.
func (p *Port) send(ctx context.Context) {
	for {
		batch := p.outgoing.take()
		if batch == nil {
			return
		}
		for len(batch) > 0 {
			part := batch
			if p.out != nil {
				part = batch[:min(len(batch), p.out.Burst())]
				if p.out.WaitN(ctx, len(part)) != nil {
					return
				}
			}
			if _, err := p.conn.Write(part); err != nil {
				return
			}
			batch = batch[len(part):]
		}
	}
}

// Pair returns the two ends of a fresh stream socket: one as a file for a
// process to inherit, the other one as a connection.
func Pair(name string) (*os.File, net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair for %s: %w", name, err)
	}
	for _, fd := range fds {
		// Room for a burst: a full buffer here costs the machine a wait. The
		// kernel may grant less.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, queueSize)
	}
	theirs, ours := os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name)
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("socket pair for %s: %w", name, err)
	}
	return theirs, conn, nil
}
