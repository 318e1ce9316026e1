package show

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Work is something that the machines of a cluster did together.
type Work struct {
	What     string
	Machines int    // that were up
	Lost     string // the machine that lost its power meanwhile, or before; "" for none
	Took     time.Duration
	On       []int // how much was done on each machine, in their order
	Again    int   // files that were compiled on the first machine because they were lost elsewhere
	Err      error
}

// What is counted of each work.
const (
	oneComputer   = "one computer"
	filesCompiled = "files compiled"
	processes     = "MPI processes"
	batchTasks    = "batch tasks"
)

// What the first machine runs, as anna. The files are those of images/cluster/programs.
const (
	unpackLua = `rm -rf lua icecc.log && mkdir -p lua bin && tar -xzf /usr/src/programs/lua.tar.gz -C lua --strip-components=1`
	// Nothing comes from the last build: each file is compiled again. The first Lua stays,
	// because the queue's tasks may be using it.
	buildLua = `cd lua/src && export CCACHE_RECACHE=1 ICECC_DEBUG=debug ICECC_LOGFILE=$HOME/icecc.log &&
make -j"$(cat /run/viver-compile/jobs)" linux && ./lua -e 'assert(2 + 2 == 4)' && { [ -e ~/bin/lua ] || cp lua ~/bin/; }`
	buildPi = `gcc -O2 -I/usr/src/programs -o bin/pi /usr/src/programs/pi.c -l:libmpi.so.40`
	runPi   = `mpirun bin/pi`
	tasks   = 8
	// sbatch --wait looks every 32 s in the end.
	countPrimes = `rm -rf primes && mkdir primes &&
job=$(sbatch --parsable --array=1-%d --output=primes/%%a %s /usr/src/programs/primes.sh) &&
while squeue -h -j "$job" 2>/dev/null | grep -q .; do sleep 1; done && cat primes/*`
	// All daemons that icecream's scheduler knows, which this machine's daemon was told where.
	listDaemons = `exec 3<>/dev/tcp/$(ps -o args= -C iceccd | sed -n '1s/.*--scheduler-host \([^ ]*\).*/\1/p')/8766 && printf 'listcs\nquit\n' >&3 && cat <&3`
	reachAll    = `for host in $(cut -d ' ' -f 1 /run/viver-mpi/hosts); do [ "$host" = "$(hostname)" ] || ssh -n -o BatchMode=yes "$host" true || exit; done`
)

// build has all machines build Lua, from the first one. lose, if any, is called as soon as
// a file was sent to the last machine.
func (n *Network) build(ctx context.Context, lose func() error) Work {
	w := Work{What: filesCompiled, Machines: len(n.vms)}
	var addresses []string
	for _, m := range n.Board.Machines()[:w.Machines] {
		address, _, _ := strings.Cut(m.Node.Address, "/")
		addresses = append(addresses, address)
	}
	if _, w.Err = n.anna(ctx, unpackLua); w.Err != nil {
		return w
	}
	n.task(n.vms[0], "builds Lua")
	defer n.task(n.vms[0], "")
	began, built := time.Now(), make(chan error, 1)
	go func() {
		_, err := n.anna(ctx, buildLua)
		built <- err
	}()
	var lost error
	if lose != nil {
		lost = fmt.Errorf("the build ended before %s had a file to compile", n.vms[w.Machines-1].Name())
	}
	for waiting := true; waiting; {
		select {
		case w.Err = <-built:
			waiting = false
		case <-time.After(time.Second):
		}
		log, err := n.vms[0].Run(ctx, "@read", "/home/anna/icecc.log")
		if err != nil {
			continue // there is none yet
		}
		w.On, w.Again = compiled(log, addresses)
		n.task(n.vms[0], fmt.Sprintf("builds Lua: %d files", sum(w.On)))
		if waiting && lose != nil && w.On[w.Machines-1] > 0 {
			lost, lose = lose(), nil
		}
	}
	w.Took = time.Since(began)
	w.Err = errors.Join(w.Err, lost)
	n.report(w)
	return w
}

// compiled counts where files were compiled, by what icecc has logged on the first machine
// about those at these addresses, and how many were lost and compiled there again.
func compiled(log string, addresses []string) (on []int, again int) {
	on = []int{strings.Count(log, "building myself")}
	for _, address := range addresses[1:] {
		on = append(on, strings.Count(log, "Have to use host "+address+":"))
	}
	return on, strings.Count(log, "got exception")
}

// compute has a process on each processor compute its share of pi.
func (n *Network) compute(ctx context.Context) Work {
	w := Work{What: processes, Machines: len(n.vms)}
	n.task(n.vms[0], "computes pi by MPI")
	defer n.task(n.vms[0], "")
	if _, w.Err = n.anna(ctx, buildPi); w.Err != nil {
		return w
	}
	began := time.Now()
	said, err := n.anna(ctx, runPi)
	w.Took = time.Since(began)
	for line := range strings.Lines(said) {
		n.Board.Say("  %s", strings.TrimSpace(line))
	}
	if w.On, w.Err = computed(said, n.hostnames()); err != nil {
		w.Err = err
	}
	n.report(w)
	return w
}

// computed counts the processes on each host in what pi.c prints, and looks at the result.
func computed(said string, hosts []string) (on []int, err error) {
	on = make([]int, len(hosts))
	var pi float64
	for line := range strings.Lines(said) {
		words := strings.Fields(line)
		switch {
		case len(words) > 5 && words[0] == "rank":
			for i, host := range hosts {
				if words[5] == host+":" {
					on[i]++
				}
			}
		case len(words) == 3 && words[0] == "pi":
			pi, _ = strconv.ParseFloat(words[2], 64)
		}
	}
	if math.Abs(pi-math.Pi) > 1e-8 {
		err = fmt.Errorf("pi is %v, want %v: %q", pi, math.Pi, said)
	}
	return on, err
}

// queue has the tasks of a job array count primes: on all machines, or on one of the
// others if its number is given.
func (n *Network) queue(ctx context.Context, only int) Work {
	w := Work{What: batchTasks, Machines: len(n.vms)}
	where := ""
	if only > 0 {
		where = "--nodelist=" + n.hostnames()[only]
	}
	n.task(n.vms[only], "works off a queue")
	defer n.task(n.vms[only], "")
	began := time.Now()
	said, err := n.anna(ctx, fmt.Sprintf(countPrimes, tasks, where))
	w.Took = time.Since(began)
	if w.On, w.Err = counted(said, n.hostnames()); err != nil {
		w.Err = err
	}
	n.report(w)
	return w
}

// counted counts the tasks on each host in what primes.sh prints, and looks at the result.
func counted(said string, hosts []string) (on []int, err error) {
	const want = 78498 // primes below a million
	on = make([]int, len(hosts))
	primes := 0
	for line := range strings.Lines(said) {
		host, count, _ := strings.Cut(strings.TrimSpace(line), " ")
		for i := range hosts {
			if host == hosts[i] {
				on[i]++
			}
		}
		found, _ := strconv.Atoi(count)
		primes += found
	}
	if primes != want || sum(on) != tasks {
		err = fmt.Errorf("%d tasks count %d primes, want %d and %d: %q", sum(on), primes, tasks, want, said)
	}
	return on, err
}

// hostnames are those of the machines that were switched on.
func (n *Network) hostnames() []string {
	var all []string
	for _, m := range n.Board.Machines()[:len(n.vms)] {
		all = append(all, m.Node.Hostname)
	}
	return all
}

// report says what was done.
func (n *Network) report(w Work) {
	if w.Err != nil {
		n.Board.Say("%s, %d machines: %v", w.What, w.Machines, w.Err)
		return
	}
	var shares []string
	for i, count := range w.On {
		shares = append(shares, fmt.Sprintf("%d on %s", count, n.vms[i].Name()))
	}
	n.Board.Say("%s: %s, in %.0f s", w.What, strings.Join(shares, ", "), w.Took.Seconds())
}

func sum(all []int) int {
	total := 0
	for _, n := range all {
		total += n
	}
	return total
}
