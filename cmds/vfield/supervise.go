package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"viver.lan/internal/handover"
	"viver.lan/internal/klog"
	"viver.lan/internal/supervise"
)

// supervisor keeps the block daemon and the agent running.
func supervisor(ctx context.Context) error {
	out, err := os.OpenFile(klog.Device, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	log := klog.New(out, "supervise")
	if err := protect(); err != nil {
		log.Warn("not fully protected", "why", err)
	}
	// A name with "@" is spared by inits at shutdown; the busybox we are part
	// of then takes the program from the first argument.
	programs := []supervise.Program{
		{Name: "@vfield", Path: "/bbin/vfield", Args: []string{"vfield", "node"}},
		{Name: "@viverd", Path: "/bbin/viverd", Args: []string{"viverd"}},
	}
	spared := &spareList{log: log, pids: map[string]int{"@supervise": os.Getpid()}}
	s := supervise.Supervisor{
		Programs:     programs,
		Output:       out,
		Started:      spared.started,
		ShuttingDown: func() bool { return supervise.ShuttingDown("/proc/1/cmdline") },
		Backoff:      200 * time.Millisecond,
		Log:          log,
	}
	return s.Run(ctx)
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
		l.log.Warn("sysvinit may end us at shutdown", "why", err)
	}
}
