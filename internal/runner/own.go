package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/booted"
	"viver.lan/internal/durable"
	"viver.lan/internal/sleep"
)

// own keeps services running where process 1 keeps none. They go on when we end, and
// who comes after us finds them again by the files in dir.
//
// Package supervise starts programs again, too. But those are its children and end with it,
// which wait(2) and a context do; of what is here most is for processes of others. The two
// have nothing in common but the few lines of the pause that doubles.
type own struct {
	system       booted.System
	dir          string // a file for each service that is wanted
	cgroup       string // below which each gets a cgroup of its own
	shuttingDown func() bool
	backoff      time.Duration // before the first restart; it doubles up to 60 times that
	log          *slog.Logger

	ctx     context.Context // of those who wait for services
	mu      sync.Mutex      // guards what follows
	running map[string]*kept
	waiting sync.WaitGroup
}

// kept is one service that is kept running.
type kept struct {
	cancel context.CancelFunc
	ended  chan struct{} // closed when nobody waits for it any more
	record record
	condition
}

// record is what is known of a service, in its file.
type record struct {
	Service ServiceState `json:"service"`
	// Process is its process, and Began when that began, in the kernel's ticks: a number
	// is given away again. Cgroup is all that it has started, "" where that is its session.
	Process int    `json:"process"`
	Began   uint64 `json:"began"`
	Cgroup  string `json:"cgroup,omitempty"`
}

// newOwn finds the services again that an earlier process left. They are waited for
// until ctx ends; close then waits for those who do.
func newOwn(ctx context.Context, o *own) (*own, error) {
	o.ctx, o.running = ctx, make(map[string]*kept)
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return nil, err
	}
	for _, r := range records(o.dir, o.log) {
		o.adopt(r)
	}
	return o, nil
}

// records are the services that an earlier process left.
func records(dir string, log *slog.Logger) []record {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil // the pattern is one
	}
	var list []record
	for _, name := range files {
		var r record
		data, err := os.ReadFile(name)
		if err == nil {
			err = json.Unmarshal(data, &r)
		}
		if err != nil {
			log.Warn("a service of an earlier process is not found again", "file", name, "error", err)
			continue
		}
		list = append(list, r)
	}
	return list
}

func (o *own) close() { o.waiting.Wait() }

// start implements services.
func (o *own) start(ctx context.Context, s ServiceState) error {
	if err := o.stop(ctx, s); err != nil {
		return err
	}
	r := record{Service: s}
	if err := o.launch(&r); err != nil {
		return err
	}
	o.adopt(r)
	return nil
}

// adopt begins to wait for a service.
func (o *own) adopt(r record) {
	ctx, cancel := context.WithCancel(o.ctx)
	k := &kept{cancel: cancel, ended: make(chan struct{}), record: r, condition: condition{state: Running}}
	o.mu.Lock()
	o.running[r.Service.Unit] = k
	o.mu.Unlock()
	o.waiting.Go(func() {
		defer close(k.ended)
		o.guard(ctx, k)
	})
}

// guard starts a service again whenever it has ended, until ctx ends.
func (o *own) guard(ctx context.Context, k *kept) {
	wait := o.backoff
	for {
		began := time.Now()
		if awaitEnd(ctx, k.record) != nil || o.shuttingDown() {
			return
		}
		killAll(k.record) // what it started is in the way of the next
		if time.Since(began) > time.Minute {
			wait = o.backoff
		}
		o.set(k, func() { k.state, k.reason = Starting, "ended, started again in "+wait.String() })
		o.log.Warn("a service of a rune ended, starting it again", "unit", k.record.Service.Unit, "in", wait)
		for {
			if sleep.For(ctx, wait) != nil {
				return
			}
			wait = min(2*wait, 60*o.backoff)
			r := k.record
			err := o.launch(&r)
			if err == nil {
				o.set(k, func() { k.record, k.state, k.reason, k.restarts = r, Running, "", k.restarts+1 })
				break
			}
			o.set(k, func() { k.reason = err.Error() })
		}
	}
}

func (o *own) set(k *kept, change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

// launch starts the program of a service and notes its process.
func (o *own) launch(r *record) error {
	group := newCgroup(o.cgroup, r.Service.Unit)
	defer group.close()
	output, err := o.logger(r.Service.Unit)
	if err != nil {
		return err
	}
	cmd := exec.Command(r.Service.Start[0], r.Service.Start[1:]...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	group.apply(cmd.SysProcAttr)
	err = o.system.Start(cmd, r.Service.User)
	if output != nil {
		err = errors.Join(err, output.Close())
	}
	if err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // only so that no dead process stays; awaitEnd sees the end
	r.Process, r.Cgroup = cmd.Process.Pid, group.path
	if r.Began, err = began(r.Process); err != nil {
		r.Began = 0 // it has ended already
	}
	data, err := json.Marshal(r)
	if err == nil {
		err = durable.WriteFile(o.file(r.Service), data, 0o600)
	}
	if err != nil {
		killAll(*r) // nobody would find it again
	}
	return err
}

// logger starts the system's own, which takes what a service prints to the system log,
// and returns its input; nil where the image has none: what is printed is lost then. No
// file is written, because nobody would bound it.
func (o *own) logger(unit string) (*os.File, error) {
	const program = "/usr/bin/logger"
	if !o.system.Has(program) {
		return nil, nil
	}
	input, output, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer input.Close()
	cmd := exec.Command(program, "-t", strings.TrimSuffix(unit, ".service"))
	cmd.Stdin = input
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := o.system.Start(cmd, ""); err != nil {
		return nil, errors.Join(err, output.Close())
	}
	go func() { _ = cmd.Wait() }() // it ends with the service
	return output, nil
}

// stop implements services.
func (o *own) stop(ctx context.Context, s ServiceState) error {
	o.mu.Lock()
	k := o.running[s.Unit]
	o.mu.Unlock()
	if k == nil {
		return nil
	}
	k.cancel()
	<-k.ended
	if err := end(ctx, k.record); err != nil {
		return err
	}
	if err := os.Remove(o.file(s)); err != nil && !errors.Is(err, os.ErrNotExist) { // last: until then who comes after us finds it
		return err
	}
	o.mu.Lock()
	delete(o.running, s.Unit)
	o.mu.Unlock()
	return nil
}

func (o *own) file(s ServiceState) string { return filepath.Join(o.dir, s.Unit+".json") }

// end ends a service: with its signal, and all that is left of it when it has had the
// time, which it gets even when ctx ends.
func end(ctx context.Context, r record) error {
	if alive(r) {
		signal := unix.SignalNum(r.Service.Stop)
		if signal == 0 {
			signal = unix.SIGTERM
		}
		if err := unix.Kill(-r.Process, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end %s: %w", r.Service.Unit, err)
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		_ = awaitEnd(ctx, r) // one that is late is killed
	}
	killAll(r)
	return nil
}

// killAll ends at once what is left of a service, whose first process may have ended. Its
// number is the group's, too, and is not given away while somebody is in that; when it
// was given away, nobody is.
func killAll(r record) {
	if r.Cgroup != "" && os.WriteFile(filepath.Join(r.Cgroup, "cgroup.kill"), []byte("1"), 0) == nil {
		return
	}
	if now, err := began(r.Process); r.Process > 1 && (err != nil || now == r.Began) {
		_ = unix.Kill(-r.Process, unix.SIGKILL)
	}
}

// awaitEnd returns when a service's process has ended, whoever started it, or with an
// error when ctx ends.
func awaitEnd(ctx context.Context, r record) error {
	over, cancel, err := os.Pipe()
	if err != nil {
		return err
	}
	defer over.Close()
	stop := context.AfterFunc(ctx, func() { _ = cancel.Close() })
	defer func() {
		if stop() {
			_ = cancel.Close()
		}
	}()
	for alive(r) && ctx.Err() == nil {
		fd, err := unix.PidfdOpen(r.Process, 0)
		if errors.Is(err, unix.ESRCH) {
			break
		}
		if err != nil { // a kernel before 5.3
			if err := sleep.For(ctx, time.Second); err != nil {
				return err
			}
			continue
		}
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(over.Fd())}}, -1)
		_ = unix.Close(fd)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return ctx.Err()
}

// alive reports whether the process of a record is the one that it was.
func alive(r record) bool {
	now, err := began(r.Process)
	return err == nil && now == r.Began
}

// began returns when a process began, in ticks since the kernel did (proc(5), stat,
// field 22). One that has ended and was not waited for is none.
func began(process int) (uint64, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(process) + "/stat")
	if err != nil {
		return 0, err
	}
	return parseStat(string(data))
}

func parseStat(stat string) (uint64, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]) // a name may hold anything
	const state, start = 0, 22 - 3                                      // the third field is the first of these
	if len(fields) <= start || fields[state] == "Z" || fields[state] == "X" {
		return 0, errors.New("no running process")
	}
	return strconv.ParseUint(fields[start], 10, 64)
}

// conditions implements services.
func (o *own) conditions(context.Context, []string) (map[string]condition, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make(map[string]condition)
	for unit, k := range o.running {
		all[unit] = k.condition
	}
	return all, nil
}
