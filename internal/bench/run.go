package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/bench/figures"
	"viver.lan/internal/bench/nbdread"
	"viver.lan/internal/bench/process"
	"viver.lan/internal/cputime"
	"viver.lan/internal/netbed"
	"viver.lan/internal/sleep"
)

// run is one system on one bed, measured once. Node 0 is the origin, nodes 1
// to n read.
type run struct {
	ctx     context.Context // the run's life, and that of all it starts
	spec    spec
	options *Options
	payload *payload
	dir     string // scratch, in memory
	logs    string
	bed     *netbed.Bed

	got []atomic.Int64 // bytes each node has received; index 0 is unused

	mu        sync.Mutex
	processes []*process.Process
	sender    *process.Process
	receivers []*process.Process // by node; nil where there is none
}

// system is something that brings a file from node 0 to the others.
type system interface {
	// serve starts what runs on node 0 and returns when it can be asked.
	serve(ctx context.Context, r *run) error
	// prepare readies node i before the common start.
	prepare(ctx context.Context, r *run, i int) error
	// fetch brings the whole file to node i, and returns when its last byte is
	// there. It counts in r.got[i] and checks every byte, the latter perhaps
	// only in verify.
	fetch(ctx context.Context, r *run, i int, from int64) error
	// verify checks what fetch did not, after the time has been taken.
	verify(r *run, i int) error
}

// start is the common start and what else a run is told.
type moments struct {
	delay func(i int) time.Duration // of node i after the common start
	from  func(i int) int64         // where it begins to read
	dying map[int]bool
}

func (s spec) moments() moments {
	m := moments{delay: func(int) time.Duration { return 0 }, from: func(int) int64 { return 0 }}
	switch s.start {
	case figures.Staggered:
		m.delay = func(i int) time.Duration {
			return s.fileTime() * time.Duration(i-1) / time.Duration(max(s.n-1, 1))
		}
	case figures.Offsets:
		// Spread like random ones, and the same in each run.
		m.from = func(i int) int64 {
			return int64(uint64(i)*0x9E3779B97F4A7C15>>40) * s.size >> 24 / nbdread.Size * nbdread.Size
		}
	case figures.Deaths:
		m.dying = make(map[int]bool)
		for i := 4; i <= s.n; i += 4 {
			m.dying[i] = true
		}
	}
	return m
}

// measure runs s once.
func (o *Options) measure(ctx context.Context, s spec, p *payload) (res result, err error) {
	logs := filepath.Join(o.Out, "log", strings.ReplaceAll(s.name(), ":", "-"))
	if err := errors.Join(os.RemoveAll(logs), os.MkdirAll(logs, 0o755)); err != nil {
		return res, err
	}
	dir, err := os.MkdirTemp(o.scratch, "run-")
	if err != nil {
		return res, err
	}
	nodes := s.n
	if s.kind == demand {
		nodes = 1
	}
	bed, err := netbed.New(netbed.Config{Nodes: nodes + 1, Rate: int64(s.mbit) * 1e6})
	if err != nil {
		return res, err
	}
	r := &run{spec: s, options: o, payload: p, dir: dir, logs: logs, bed: bed,
		got: make([]atomic.Int64, nodes+1), receivers: make([]*process.Process, nodes+1)}
	ctx, cancel := context.WithCancel(ctx)
	r.ctx = ctx
	defer func() {
		r.stop()
		cancel()
		err = errors.Join(err, bed.Close(), os.RemoveAll(dir))
	}()
	sys, err := o.system(s)
	if err != nil {
		return res, err
	}
	if err := sys.serve(ctx, r); err != nil {
		return res, fmt.Errorf("start the origin: %w", err)
	}
	if s.kind == demand {
		return r.demand(ctx)
	}
	return r.spread(ctx, sys)
}

// spread measures from the common start until every node has the file, or
// until the window closes.
func (r *run) spread(ctx context.Context, sys system) (res result, err error) {
	s := r.spec
	var prepare errgroup.Group
	for i := 1; i <= s.n; i++ {
		prepare.Go(func() error { return sys.prepare(ctx, r, i) })
	}
	if err := prepare.Wait(); err != nil {
		return res, err
	}
	limit := 5*s.ideal() + time.Minute
	if s.window > 0 {
		limit = s.window
	}
	m := s.moments()
	speeds := make([]float64, s.n+1)
	before, err := r.sample()
	if err != nil {
		return res, err
	}
	r.mark()
	progress := r.watch(before.at)
	defer progress()

	timed, cancel := context.WithDeadline(ctx, before.at.Add(limit))
	defer cancel()
	g, gctx := errgroup.WithContext(timed)
	for i := 1; i <= s.n; i++ {
		g.Go(func() error {
			mine, cancel := context.WithCancel(gctx)
			defer cancel()
			if m.dying[i] {
				death := time.AfterFunc(time.Until(before.at.Add(s.fileTime()/2)), func() {
					cancel()
					r.die(i)
				})
				defer death.Stop()
			}
			begin := before.at.Add(m.delay(i))
			if err := sleep.For(mine, time.Until(begin)); err != nil {
				return err
			}
			err := sys.fetch(mine, r, i, m.from(i))
			if m.dying[i] && gctx.Err() == nil {
				return nil // as it was meant to
			}
			if err != nil {
				return fmt.Errorf("node %d: %w", i, err)
			}
			speeds[i] = float64(s.size) / time.Since(begin).Seconds()
			return nil
		})
	}
	err = g.Wait()
	after, sampleErr := r.sample()
	if sampleErr != nil {
		return res, sampleErr
	}
	r.takeCPU()
	switch {
	case s.window > 0 && ctx.Err() == nil && errors.Is(timed.Err(), context.DeadlineExceeded):
		for i := 1; i <= s.n; i++ {
			speeds[i] = float64(r.got[i].Load()) / s.window.Seconds()
		}
	case err != nil && ctx.Err() == nil && timed.Err() != nil:
		return res, fmt.Errorf("not finished after %s: the nodes have %s", limit, r.shares())
	case err != nil:
		return res, err
	}
	for i := 1; i <= s.n; i++ {
		res.received += r.got[i].Load()
		if m.dying[i] {
			continue
		}
		res.speeds = append(res.speeds, speeds[i])
		if s.window == 0 {
			if err := sys.verify(r, i); err != nil {
				return res, fmt.Errorf("node %d: %w", i, err)
			}
		}
	}
	res.sent, res.busy = after.sent-before.sent, cputime.Busy(before.cpu, after.cpu)
	res.sendCPU, res.recvCPU = r.sendCPU(), r.recvCPU()
	return res, nil
}

// shares says how far each node has come, in per cent.
func (r *run) shares() string {
	var out []string
	for i := 1; i < len(r.got); i++ {
		out = append(out, strconv.Itoa(int(100*r.got[i].Load()/r.spec.size))+" %")
	}
	return strings.Join(out, ", ")
}

// sample is what is read off before and after.
type sample struct {
	at   time.Time
	sent int64
	cpu  cputime.Times
}

func (r *run) sample() (s sample, err error) {
	if s.sent, err = r.bed.Node(0).Sent(); err != nil {
		return s, err
	}
	if s.cpu, err = cputime.Read(); err != nil {
		return s, err
	}
	s.at = time.Now()
	return s, nil
}

// start runs a program in a node until it ends or the run does: a node that has
// the whole file stays, and passes it on to those that have not.
func (r *run) start(node *netbed.Node, worker bool, name string, args ...string) (*process.Process, error) {
	p, err := process.Start(r.ctx, node, filepath.Join(r.logs, fmt.Sprintf("%d.log", node.Index())), worker, name, args...)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.processes = append(r.processes, p)
	return p, nil
}

// receiver notes the process that receives on node i.
func (r *run) receiver(i int, p *process.Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.receivers[i] = p
}

// die kills what runs on node i.
func (r *run) die(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.receivers[i]; p != nil {
		p.Kill()
	}
}

// mark notes the CPU that processes used before the common start, takeCPU
// what they have used at the end.
func (r *run) mark() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.processes {
		p.Mark()
	}
}

func (r *run) takeCPU() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.processes {
		p.Take()
	}
}

func (r *run) sendCPU() float64 {
	if r.sender == nil {
		return math.NaN()
	}
	return r.sender.CPU()
}

func (r *run) recvCPU() (sum float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.receivers[1:] {
		if p == nil {
			return math.NaN()
		}
		sum += p.CPU()
	}
	return sum
}

// stop ends all processes, at once but in order.
func (r *run) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	var g sync.WaitGroup
	for _, p := range r.processes {
		g.Go(p.Stop)
	}
	g.Wait()
}
