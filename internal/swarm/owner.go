package swarm

import (
	"context"
	"time"

	"viver.lan/internal/contain"
	"viver.lan/internal/exchange"
)

// call is something that a goroutine has to report to the exchange or to ask of it.
type call struct {
	f func(x *exchange.Exchange)
	// What came of it, once done was told.
	done   chan struct{}
	verify []exchange.Verify
	said   []exchange.Log
	fault  *contain.Fault
}

// own is the goroutine that owns the exchange and the list of connections: nobody
// else touches them. It neither reads, writes nor hashes, so most calls take
// microseconds; and whoever calls has one call under way at most, which bounds
// them.
func (s *Swarm) own() {
	defer close(s.ended)
	tick := time.NewTicker(exchange.TickEvery)
	defer tick.Stop()
	for {
		var own call // a fault of these ends the process: there is nobody to blame
		select {
		case c := <-s.calls:
			s.take(c)
			close(c.done)
			continue
		case <-s.flush.C:
			own.f = (*exchange.Exchange).Flush
		case <-tick.C:
			own.f = s.tick
		case <-s.stop:
			return
		}
		s.take(&own)
		s.finish(&own)
	}
}

func (s *Swarm) tick(x *exchange.Exchange) {
	for _, c := range s.conns {
		c.progress(x)
	}
	x.Tick()
}

// take does what a call is about, and carries out the commands that follow, but
// for those that the caller does. A fault is the caller's, too.
func (s *Swarm) take(c *call) {
	now := s.now()
	s.x.SetTime(now)
	func() {
		defer contain.Catch(&c.fault)
		c.f(s.x)
	}()
	for _, command := range s.x.Commands() {
		switch command := command.(type) {
		case exchange.Verify:
			c.verify = append(c.verify, command)
		case exchange.Log:
			c.said = append(c.said, command)
		default:
			s.carryOut(command)
		}
	}
	at := s.x.FlushAt()
	if at != s.flushAt && at > 0 {
		s.flush.Reset(at - now)
	}
	s.flushAt = at
}

// finish says what a call had to say, in the caller's goroutine: nobody else shall
// wait for it.
func (s *Swarm) finish(c *call) {
	if c.fault != nil {
		panic(c.fault)
	}
	for _, l := range c.said {
		s.log.Log(context.Background(), l.Level, l.Text, l.Args...)
	}
}

// do has the owner do f, and waits for it. Pieces that are to be verified then are
// verified by the caller.
func (s *Swarm) do(f func(x *exchange.Exchange)) {
	c := &call{f: f, done: make(chan struct{})}
	select {
	case s.calls <- c:
	case <-s.ended:
		return
	}
	select {
	case <-c.done:
	case <-s.ended:
		return
	}
	defer s.finish(c)
	for _, v := range c.verify {
		s.verify(v)
	}
}
