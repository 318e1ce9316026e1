package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/control"
	"viver.lan/internal/event"
	"viver.lan/internal/handover"
	"viver.lan/internal/klog"
	"viver.lan/internal/protect"
)

// Node keeps the daemons of this node running, the block daemon and the agent,
// until the machine is off. They begin when the files end that uinit left open for each
// of them (control.AwaitStart).
func Node(ctx context.Context) error {
	out, err := os.OpenFile(klog.Device, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	log := klog.New(out, "supervise")
	if err := protect.ThisProcess(); err != nil {
		log.Warn("not fully protected", "error", err)
	}
	// A name with "@" is spared by inits at shutdown.
	spared := &spareList{log: log, pids: map[string]int{"@supervise": os.Getpid()}}
	s := supervisor{
		// The busybox that we are part of takes the program from the argument after
		// the name.
		programs: []program{
			{name: "@vfield", path: "/bbin/vfield", args: []string{"vfield", "node"}, input: inherited(control.VFieldStart), nice: diskNice},
			agent("/bbin/viverd", inherited(control.AgentStart), "viverd"),
			{name: "@vrune", path: "/bbin/vrune", args: []string{"vrune"}, input: inherited(control.RunnerStart), wanted: runnerWanted},
		},
		output:       out,
		started:      spared.started,
		shuttingDown: func() bool { return ShuttingDown("/proc/1/cmdline") },
		backoff:      200 * time.Millisecond,
		log:          log,
	}
	return s.run(ctx)
}

// runnerWanted reports whether a rune asks for anything of the running system, and the
// boot is over, which wants the processor and the disk for itself: the block daemon leaves
// its record after five minutes at the latest.
func runnerWanted() bool {
	for _, file := range []string{control.RunnerWantedFile, control.RecordFile} {
		if _, err := os.Stat(file); err != nil {
			return false
		}
	}
	return true
}

// inherited is a file that uinit left open, for one of the daemons only.
func inherited(fd int) *os.File {
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "start")
}

// agent is the program at path as it runs on every node. It talks to everybody
// on the link, so it is nobody who owns anything: it binds the ports of a boot
// host, and sends raw packets: address probes, questions who else serves and, as a
// router would, advertisements (packet(7), raw(7)). The files it reads are open to
// all; the block daemon's socket and its own port for events to its group.
//
// The block daemon itself stays root: it attaches disks and guards the boot
// NIC, keeps pieces in whatever folder the cache disk has, and systemd's
// shutdown spares no program of another user.
func agent(path string, input *os.File, args ...string) program {
	return program{
		name: "@viverd", path: path, args: args, input: input,
		rights:  newAgentRights(),
		nice:    agentNice,
		prepare: func() { lendPort("/sys", "/dev") },
	}
}

func newAgentRights() *rights {
	return &rights{
		uid: control.AgentID, gid: control.AgentID,
		capabilities: []uintptr{unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW},
	}
}

// lendPort opens the agent's port for events, which a machine has only if it is
// a virtual one whose host listens, to the agent. The distribution may set
// another mode at any time, which the agent notices at its next start.
func lendPort(sys, dev string) {
	port, err := event.FindPort(sys, dev, event.PortName("viverd"))
	if err != nil {
		return
	}
	_ = errors.Join(os.Chown(port, -1, control.AgentID), os.Chmod(port, 0o620)) // it does without
}

// spareList asks sysvinit, which knows no other sign, to leave these processes
// alone at shutdown. A machine whose init does not use the list loses nothing.
type spareList struct {
	log *slog.Logger

	mu   sync.Mutex
	pids map[string]int
}

func (l *spareList) started(name string, pid int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pids[name] = pid
	if err := handover.Spare("/run", slices.Collect(maps.Values(l.pids))...); err != nil {
		l.log.Warn("sysvinit may end us at shutdown", "error", err)
	}
}
