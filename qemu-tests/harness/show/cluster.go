package show

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"viver.lan/qemu-tests/harness"
)

// Build is a program that the machines of a network have built together.
type Build struct {
	Machines int    // that were up
	Lost     string // the machine that lost its power meanwhile; "" for none
	Took     time.Duration
	Jobs     Jobs
	Err      error
}

// Jobs say where the files of a program were compiled, by icecream's log.
type Jobs struct {
	Home  int   // on the machine where it was built
	Sent  []int // to each of the others
	Again int   // at home, because they were lost where they had been sent
}

// jobsIn counts what icecc has logged, for other machines at these addresses.
func jobsIn(log string, others []string) Jobs {
	j := Jobs{Home: strings.Count(log, "building myself"), Again: strings.Count(log, "got exception")}
	for _, address := range others {
		j.Sent = append(j.Sent, strings.Count(log, "Have to use host "+address+":"))
	}
	return j
}

// DemoCluster boots machines of the recipe `cluster` a few at a time. Each time they
// build a program together, the last time while one of them loses its power.
func DemoCluster(ctx context.Context, out io.Writer, medium string, bundles []string, dir string) error {
	const machines = 4
	plan := Plan{Medium: medium, Dir: dir}
	for _, name := range Names(machines) {
		plan.Machines = append(plan.Machines, harness.Config{Name: name, Firmware: harness.BIOS, Memory: 1024})
	}
	own, remove, err := withRunes(ctx, medium, bundles)
	if err != nil {
		return err
	}
	defer remove()
	plan.Medium = own
	var missing []string
	err = session(ctx, out, plan, func(n *Network) error {
		var builds []Build
		var bootErr error
		for _, count := range []int{1, 2, machines} {
			if bootErr = n.BootUpTo(ctx, count); bootErr != nil {
				break
			}
			builds = append(builds, n.build(ctx, nil))
		}
		if bootErr == nil {
			builds = append(builds, n.build(ctx, n.vms[machines-1]))
		}
		checks := buildChecks(builds)
		n.finish(out, bootErr, checks)
		_ = writeBuilds(out, Names(machines), builds) // nobody left to tell
		missing = Missing(n.Board.Machines(), checks)
		return context.Cause(ctx)
	})
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%w: %s", ErrNotShown, strings.Join(missing, "; "))
	}
	return err
}

// What the machine runs that builds. The program lies where the rune of the demo puts it.
const (
	unpackProgram = "rm -rf /root/program && mkdir /root/program && tar -xzf /usr/src/program.tar.gz -C /root/program --strip-components=1"
	// Nothing comes from the last build: each file is compiled again.
	buildProgram = `cd /root/program/src && export CCACHE_RECACHE=1 ICECC_DEBUG=debug ICECC_LOGFILE=/root/program/log &&
make -j"$(cat /run/viver-compile/jobs)" linux && ./lua -e 'assert(2 + 2 == 4)'`
	// All daemons that the scheduler knows, which this machine's daemon was told where.
	listDaemons = `exec 3<>/dev/tcp/$(ps -o args= -C iceccd | sed -n '1s/.*--scheduler-host \([^ ]*\).*/\1/p')/8766 && printf 'listcs\nquit\n' >&3 && cat <&3`
)

// build has the first machine build the program with all that are up. lose, if any, loses
// its power as soon as something was sent to it.
func (n *Network) build(ctx context.Context, lose *harness.VM) (b Build) {
	b.Machines = len(n.vms)
	builder := n.vms[0]
	var others []string
	for _, m := range n.Board.Machines()[1:b.Machines] {
		address, _, _ := strings.Cut(m.Node.Address, "/")
		others = append(others, address)
	}
	if err := await(ctx, builder, func() bool {
		said, err := builder.Run(ctx, "bash", "-c", listDaemons)
		return err == nil && strings.Count(said, ":10245)") == b.Machines
	}); err != nil {
		b.Err = fmt.Errorf("icecream's scheduler does not know all machines: %w", err)
		return b
	}
	if _, err := builder.Run(ctx, "sh", "-c", unpackProgram); err != nil {
		b.Err = err
		return b
	}
	n.Board.Say("%d machines build a program", b.Machines)
	began, built := time.Now(), make(chan error, 1)
	go func() {
		_, err := builder.Run(ctx, "env", "HOME=/root", "bash", "-lc", buildProgram)
		built <- err
	}()
	if lose != nil {
		b.Lost = lose.Name()
		if err := await(ctx, builder, func() bool {
			log, err := builder.Run(ctx, "cat", "/root/program/log")
			return len(built) > 0 || err == nil && jobsIn(log, others[len(others)-1:]).Sent[0] > 0
		}); err != nil {
			b.Err = err
		}
		lose.PowerCut()
		n.Board.update(lose.Name(), func(m *Machine) { m.Task = "its power is off" })
	}
	b.Err = errors.Join(b.Err, <-built)
	b.Took = time.Since(began)
	log, err := builder.Run(ctx, "cat", "/root/program/log")
	b.Jobs, b.Err = jobsIn(log, others), errors.Join(b.Err, err)
	return b
}

// await asks again and again until something holds, as long as the machine shows signs of
// life.
func await(ctx context.Context, vm *harness.VM, holds func() bool) error {
	ctx, cancel := vm.While(ctx)
	defer cancel()
	for !holds() {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// buildChecks says what the builds show: each ended well, and everybody had a share.
func buildChecks(builds []Build) []Check {
	var checks []Check
	for _, b := range builds {
		c := Check{What: fmt.Sprintf("%d machines build a program together", b.Machines), Err: b.Err}
		if b.Lost != "" {
			c.What = fmt.Sprintf("%s loses its power while %d machines build: the build ends well", b.Lost, b.Machines)
		}
		for _, jobs := range b.Jobs.Sent {
			if jobs == 0 && c.Err == nil {
				c.Err = errors.New("one of them compiled nothing")
			}
		}
		checks = append(checks, c)
	}
	return checks
}

// writeBuilds prints a table of builds.
func writeBuilds(w io.Writer, names []string, builds []Build) error {
	var b strings.Builder
	table(&b, func(t *tabwriter.Writer) {
		fmt.Fprintf(t, "FILES COMPILED ON\t%s\tLOST, AND AGAIN ON %s\tSECONDS\n", strings.Join(names, "\t"), names[0])
		for _, build := range builds {
			title := fmt.Sprintf("with %d machines", build.Machines)
			if build.Lost != "" {
				title = build.Lost + " loses its power"
			}
			fmt.Fprintf(t, "%s\t%d", title, build.Jobs.Home)
			for i := range names[1:] {
				if i < len(build.Jobs.Sent) {
					fmt.Fprintf(t, "\t%d", build.Jobs.Sent[i])
				} else {
					fmt.Fprint(t, "\t-")
				}
			}
			fmt.Fprintf(t, "\t%d\t%.0f\n", build.Jobs.Again, build.Took.Seconds())
		}
	})
	fmt.Fprintln(&b, "The machines share this computer's processors: what grows with them is who has a share, not the speed.")
	_, err := io.WriteString(w, b.String())
	return err
}
