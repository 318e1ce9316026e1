package swarm

import (
	"context"
	"time"

	"viver.lan/internal/contain"
	"viver.lan/internal/exchange"
	"viver.lan/internal/swarm/wire"
)

// event is something that a goroutine has to report to the exchange or to ask of it.
type event struct {
	f func(x *exchange.Exchange)
	// fromPeers says what f acts on when peers decide what that is. A fault in it ends
	// that and the connection; elsewhere, where it is empty, it ends the process.
	fromPeers string
	conn      *conn         // nil: of no connection
	done      chan struct{} // closed afterwards; nil: nobody waits
}

// own is the goroutine that owns the exchange and the list of connections: nobody
// else touches them. It neither reads, writes nor hashes, its log is a queue, so most
// events take microseconds; and those who report more of them than it can take have to wait.
// It ends at an event without f, when all others have ended.
func (s *Swarm) own() {
	defer close(s.ended)
	for e := range s.events {
		if e.f == nil {
			return
		}
		s.take(e)
	}
}

// tickLoop is the exchange's clock.
func (s *Swarm) tickLoop() error {
	t := time.NewTicker(exchange.TickEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			s.events <- event{f: s.tick}
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
}

func (s *Swarm) tick(x *exchange.Exchange) {
	for _, c := range s.conns {
		c.progress(x)
	}
	x.Tick()
}

// take does what an event is about, and carries out the commands that follow.
func (s *Swarm) take(e event) {
	s.x.SetTime(s.now())
	if e.fromPeers == "" {
		e.f(s.x)
	} else if contain.Call(s.ownLog, e.fromPeers, func() error { e.f(s.x); return nil }) != nil {
		e.conn.close()
	}
	for _, c := range s.x.Commands() {
		s.carryOut(c)
	}
	if s.x.TakeStatusChanged() && s.cfg.StatusChanged != nil {
		s.cfg.StatusChanged()
	}
	if e.done != nil {
		close(e.done)
	}
}

// carryOut does what the exchange wants done, or has it done where that takes time.
func (s *Swarm) carryOut(c exchange.Command) {
	switch c := c.(type) {
	case exchange.Send:
		s.conns[c.To].send(c.Message, false)
	case exchange.Announce:
		have := wire.Message{Type: wire.Have, Block: wire.Block{Piece: c.Piece}}
		for _, k := range c.To {
			s.conns[k].send(have, c.Later)
		}
	case exchange.SendAll:
		for _, to := range s.conns {
			to.flush()
		}
	case exchange.WakeAt:
		s.wake.Reset(c.Time - s.now())
	case exchange.Close:
		s.conns[c.To].close()
	case exchange.Offer:
		s.conns[c.To].offer(c.Urgent)
	case exchange.Dial:
		s.spawn(func() { s.dial(c.To) })
	case exchange.Answer:
		s.spawn(func() { s.answer(c) })
	case exchange.Check:
		s.spawn(func() { s.check(c) })
	case exchange.Log:
		s.ownLog.Log(context.Background(), c.Level, c.Text, c.Args...)
	}
}

// spawn has a goroutine do f. Run waits for it.
func (s *Swarm) spawn(f func()) {
	if s.ending {
		return
	}
	s.group.Go(func() error {
		f()
		return nil
	})
}

// Post has the owner do f with the exchange after what was asked of it before. f must
// not wait for anything, nor keep x. After the end of Run it comes to nothing.
func (s *Swarm) Post(f func(x *exchange.Exchange)) { s.post(event{f: f}) }

func (s *Swarm) post(e event) {
	select {
	case s.events <- e:
	case <-s.ended:
	}
}

// report has the owner know of something that peers have caused. It is for goroutines
// that the owner outlives.
func (s *Swarm) report(what string, f func(x *exchange.Exchange)) {
	s.events <- event{f: f, fromPeers: what}
}

// Do is Post, and waits until it is done.
func (s *Swarm) Do(f func(x *exchange.Exchange)) {
	done := make(chan struct{})
	s.post(event{f: f, done: done})
	select {
	case <-done:
	case <-s.ended:
	}
}

// Ask is Do for what gives an answer; after the end of Run that is the zero value.
func Ask[T any](s *Swarm, f func(x *exchange.Exchange) T) (answer T) {
	s.Do(func(x *exchange.Exchange) { answer = f(x) })
	return answer
}

// Changed says that the store has got piece i without the swarm, or has it no
// longer; peers are told.
func (s *Swarm) Changed(i int) {
	// The store may have changed again meanwhile.
	s.Post(func(x *exchange.Exchange) { x.SetHeld(i, s.cfg.Store.Has(i)) })
}
