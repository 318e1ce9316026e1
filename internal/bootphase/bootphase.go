// Package bootphase decides when a machine that boots from the shared disk is up, and
// until then whether work that could wait would be in the way.
//
// What a booting machine reads comes first: its share of the network's copies would
// take the processor and the link away from it. But a machine with a processor and a
// link to spare must not hold back either, because the network is independent of the
// first node only when the others have their copies. This is pure policy: it is told
// what happens and owns no clock.
package bootphase

import "time"

const (
	// SampleEvery is how often Take is to be called.
	SampleEvery = 250 * time.Millisecond
	// Work may begin when idleShare of the processors was idle for spareAfter and
	// nobody waited for the disk, and ends when less than busyShare is idle or somebody
	// waits. The difference is what such work takes itself.
	idleShare, busyShare = 0.5, 0.25
	spareAfter           = time.Second
	// quietAfter is how long an idle machine does not read its disk when its boot is
	// over, as far as can be told from outside.
	quietAfter = 10 * time.Second
	// settleAfter is how long a machine that does not become idle counts as booting after
	// its init has said that all is started: only then does the prompt appear, which
	// systemd holds back until its other jobs are done, for as long as this at most
	// (systemd.service(5), Type=idle), and its programs are read.
	settleAfter = 5 * time.Second
	// limit is how long a boot may take that never seems to end, since the first sample.
	limit = 5 * time.Minute
)

// Sample is what was seen of a machine since the sample before.
type Sample struct {
	Now   time.Duration // since any fixed moment
	Idle  float64       // share of the processors' time that was idle, 0 to 1
	Reads uint64        // of the disk, since the beginning
	// Waiting: a read waits for bytes that are not here.
	Waiting bool
	// HandedOver: the init of the machine's own Linux has begun.
	HandedOver bool
}

// Reason is why a machine counts as up.
type Reason string

// The reasons.
const (
	Booting Reason = ""                             // it does not
	Ready   Reason = "its init says so"             // sd_notify(3)
	Quiet   Reason = "it is idle and reads no more" // for quietAfter
	Before  Reason = "it was before this daemon began"
	Late    Reason = "its boot has taken long enough" // limit
)

// Phase is how far a machine's boot has come. The zero value has not begun.
type Phase struct {
	up        Reason
	begun     bool
	began     time.Duration
	now       time.Duration
	ready     bool
	readyAt   time.Duration
	reads     uint64
	spare     bool
	idleSince time.Duration // the samples since then were idle
	quietFrom time.Duration // and since then without a read
}

// Take takes a sample. Samples come in the order of time.
func (p *Phase) Take(s Sample) {
	if !p.begun {
		p.begun, p.began, p.idleSince, p.quietFrom, p.reads = true, s.Now, s.Now, s.Now, s.Reads
	}
	p.now = s.Now
	idle := s.Idle >= idleShare && !s.Waiting
	if !idle {
		p.idleSince = s.Now
	}
	if !idle || s.Reads != p.reads || !s.HandedOver {
		p.quietFrom, p.reads = s.Now, s.Reads
	}
	switch {
	case s.Now-p.idleSince >= spareAfter:
		p.spare = true
	case s.Idle < busyShare || s.Waiting:
		p.spare = false
	}
	switch {
	case p.up != Booting:
	case p.ready && (p.spare || s.Now-p.readyAt >= settleAfter):
		p.up = Ready
	case s.Now-p.quietFrom >= quietAfter:
		p.up = Quiet
	case s.Now-p.began >= limit:
		p.up = Late
	}
}

// Ready says that the machine's init has started all that it was to start. The machine
// is up when it has time to spare: then nothing is held back any more anyway.
func (p *Phase) Ready() {
	if !p.ready {
		p.ready, p.readyAt = true, p.now
	}
}

// Up returns why the machine counts as up, Booting while it does not.
func (p *Phase) Up() Reason { return p.up }

// Spare reports whether work that could wait may be done now.
func (p *Phase) Spare() bool { return p.up != Booting || p.spare }
