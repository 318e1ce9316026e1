package event

import (
	"encoding/json"
	"io"
	"slices"
	"sync"
	"time"
)

// Log hands every event to its sinks, to each in order. The zero value and the nil
// pointer discard events, so a library never has to check whether anyone listens.
type Log struct {
	program string
	uptime  func() time.Duration

	mu    sync.Mutex // guards sinks
	sinks []*sink
}

// NewLog returns a log for the named program. uptime tells the time since the
// kernel started; each sink gets one line per event and a sink that fails is
// ignored, because reporting must never stop a boot.
func NewLog(program string, uptime func() time.Duration, sinks ...io.Writer) *Log {
	l := &Log{program: program, uptime: uptime}
	for _, w := range sinks {
		l.AddSink(w)
	}
	return l
}

// AddSink adds a reader of all later events.
func (l *Log) AddSink(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sinks = append(l.sinks, &sink{log: l, w: w})
}

// patience is how long who emits waits until the sinks have the event. It is for
// programs that end right after that. A sink may block for ever, as a virtio port does
// whose host does not read, and then costs this time once.
const patience = time.Second

// Emit reports e to all sinks. When it returns they have it, but for those that block:
// for them it is queued.
func (l *Log) Emit(e Event) {
	if l == nil || l.uptime == nil {
		return
	}
	line := l.line(e)
	l.mu.Lock()
	sinks := slices.Clone(l.sinks)
	l.mu.Unlock()
	for _, s := range sinks {
		written := s.add(line)
		if written == nil {
			continue
		}
		select {
		case <-written:
		case <-time.After(patience):
			s.giveUp(written)
		}
	}
}

// line is an event as the sinks get it.
func (l *Log) line(e Event) []byte {
	data, err := json.Marshal(e)
	if err != nil {
		return nil // the types above always marshal
	}
	line, err := json.Marshal(Record{Uptime: l.uptime().Seconds(), Program: l.program, Kind: e.Kind(), Data: data})
	if err != nil {
		return nil
	}
	return append(line, '\n')
}

// maxQueue is how many lines wait for a sink at most; as many may be on their way.
const maxQueue = 1024

// sink is a reader of events with what it has not taken yet.
type sink struct {
	log *Log
	w   io.Writer

	mu    sync.Mutex // guards what follows; w is not written to under it
	queue [][]byte   // maxQueue at most
	lost  int        // events behind those, for which there was no room
	// written is closed when all is written; nil when nobody writes.
	written chan struct{}
	late    bool // somebody has waited for patience
}

// add queues a line and returns what to wait for, nil for nothing.
func (s *sink) add(line []byte) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == maxQueue {
		s.lost++
	} else {
		s.queue = append(s.queue, line)
	}
	if s.written == nil {
		s.written = make(chan struct{})
		go s.write()
	}
	if s.late {
		return nil
	}
	return s.written
}

// giveUp has nobody wait until all is written.
func (s *sink) giveUp(written <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = s.written == written
}

// write writes the queue until it is empty. If the sink blocks for ever, it has this
// goroutine for ever.
func (s *sink) write() {
	for {
		lines := s.next()
		if len(lines) == 0 {
			return
		}
		for _, line := range lines {
			_, _ = s.w.Write(line) // a sink that fails is no reason to stop
		}
	}
}

// next takes what waits to be written; nothing ends the writer.
func (s *sink) next() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines, lost := s.queue, s.lost
	s.queue, s.lost = nil, 0
	if lost > 0 {
		lines = append(lines, s.log.line(Lost{Events: lost}))
	}
	if len(lines) == 0 {
		close(s.written)
		s.written, s.late = nil, false
	}
	return lines
}
