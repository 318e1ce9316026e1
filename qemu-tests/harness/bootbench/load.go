package bootbench

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/bench/figures"
	"viver.lan/internal/cputime"
	"viver.lan/qemu-tests/harness"
)

// load measures how busy the host is with what is no part of the measurement.
type load struct {
	began time.Time
	busy  float64 // of the host
	own   float64
	vms   func() []*harness.VM
}

func measureLoad(vms func() []*harness.VM) *load {
	l := &load{began: time.Now(), vms: vms}
	l.busy, l.own = hostSeconds(), l.ownSeconds()
	return l
}

// others is their share of all processors since the beginning.
func (l *load) others() figures.Value {
	all := time.Since(l.began).Seconds() * float64(runtime.NumCPU())
	if l.busy == 0 || all == 0 {
		return figures.None()
	}
	return figures.Value(max(0, hostSeconds()-l.busy-(l.ownSeconds()-l.own)) / all)
}

// ownSeconds is what this process and its machines have used.
func (l *load) ownSeconds() (sum float64) {
	for _, vm := range l.vms() {
		sum += vm.ProcessorSeconds()
	}
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) == nil {
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
	}
	return sum
}

// firstNodeSeconds is what the machine with the medium has used of the host's
// processors; none where there is no such machine.
func firstNodeSeconds(first *harness.VM) figures.Value {
	if first == nil {
		return figures.None()
	}
	return figures.Value(first.ProcessorSeconds())
}

// hostSeconds is 0 where the host does not tell.
func hostSeconds() float64 {
	times, err := cputime.Read()
	if err != nil {
		return 0
	}
	return times.Seconds()
}
