package harness

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"viver.lan/internal/event"
	"viver.lan/qemu-tests/harness/stall"
)

// limits of every wait for a machine. A busy host only makes the signs of life
// come more slowly, so these say nothing about how fast it is; Total is for a
// machine that chatters for ever and never does what is waited for.
func limits() stall.Limits {
	return stall.Limits{Quiet: 4 * time.Minute, Weak: 10 * time.Minute, Total: maxWait}
}

// maxWait is the longest that anything is waited for.
const maxWait = 30 * time.Minute

const (
	// keepaliveRate is what a node that has nothing to do sends and receives,
	// in bytes per second, with room to spare: gossip and TCP keepalives.
	keepaliveRate = 8 << 10
	// idleShare is what QEMU needs of a processor while its guest sleeps.
	idleShare = 0.05
)

// While returns a context that ends when the machine shows no sign of life any
// more; its cause says what came last. All waits for the machine use one. The
// caller cancels it.
func (vm *VM) While(ctx context.Context) (context.Context, context.CancelFunc) {
	return stall.Watch(ctx, limits(), vm.signs()...)
}

// signs are what shows that a machine lives: its own doings only, since its
// neighbours chatter also when it hangs.
func (vm *VM) signs() []stall.Source {
	traffic := newSurplus(keepaliveRate, func() float64 { return float64(vm.traffic().bytes) })
	work := newSurplus(idleShare, func() float64 { return processorSeconds(vm.process.Pid) })
	return []stall.Source{
		{Name: "events", Count: vm.events.signs, Last: vm.events.last},
		{Name: "bytes on its console", Count: vm.console.count, Last: func() string { return fmt.Sprintf("%q", vm.console.LastLine()) }},
		{Name: "frames sent before its kernel ran", Count: vm.framesBeforeKernel},
		{Name: "seconds with more traffic than keepalives", Count: traffic.count},
		{Name: "seconds with more work than idling", Count: work.count, Weak: true},
	}
}

// framesBeforeKernel counts what the firmware and boot programs send, of which
// each frame counts: who loads a kernel by TFTP sends one in a while on a slow
// host.
func (vm *VM) framesBeforeKernel() uint64 {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if !vm.events.fresh() {
		vm.early = vm.traffic().frames
	}
	return vm.early
}

// traffic is what passed a machine's network cards.
type traffic struct {
	frames uint64 // sent
	bytes  uint64 // sent and received
}

func (vm *VM) traffic() (all traffic) {
	for _, p := range vm.ports {
		s := p.Stats()
		all.frames += s.SentFrames
		all.bytes += s.SentBytes + s.ReceivedBytes
	}
	return all
}

// surplus counts how often something grew faster than it does when nothing
// happens.
type surplus struct {
	rate float64 // per second, when nothing happens
	read func() float64
	last float64
	at   time.Time
	n    uint64
}

func newSurplus(rate float64, read func() float64) *surplus {
	return &surplus{rate: rate, read: read, last: read(), at: time.Now()}
}

func (s *surplus) count() uint64 {
	now, value := time.Now(), s.read()
	seconds := now.Sub(s.at).Seconds()
	if seconds < 0.5 {
		return s.n // a single frame would be a high rate
	}
	if value-s.last > s.rate*seconds {
		s.n++
	}
	s.last, s.at = value, now
	return s.n
}

// processorSeconds is the time that a process has run; 0 when it is gone.
func processorSeconds(pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	return parseStat(string(stat))
}

// parseStat reads utime and stime, fields 14 and 15 of proc_pid_stat(5); the
// name before them may contain anything.
func parseStat(stat string) float64 {
	const ticksPerSecond = 100 // USER_HZ, the same on every architecture of ours
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseUint(f[11], 10, 64)
	system, _ := strconv.ParseUint(f[12], 10, 64)
	return float64(user+system) / ticksPerSecond
}

// isSign tells whether an event shows that something goes on; a read that
// waits is reported again and again because nothing does.
func isSign(rec event.Record) bool { return rec.Kind != event.Waiting{}.Kind() }
