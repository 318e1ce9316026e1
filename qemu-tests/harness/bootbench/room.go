package bootbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/bench/figures"
	"viver.lan/internal/event"
	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/lan"
)

// independenceLimit is how long a room is watched after its last login.
const independenceLimit = 10 * time.Minute

// measureRoom switches the machines of a room on at one moment, beside an idle
// first node of the same image.
func (b *bench) measureRoom(ctx context.Context, lab *harness.Lab, segment *lan.Switch, s spec) (rows []Row, err error) {
	info, err := os.Stat(b.options.image(s.image, "root.squashfs"))
	if err != nil {
		return nil, err
	}
	var m meters
	first, err := b.startFirst(ctx, lab, segment, &m, b.options.medium(s.image))
	if err != nil {
		return nil, err
	}
	b.progress.report("all machines boot")
	sentBefore := first.Port(0).Stats().SentBytes
	running := []*harness.VM{first}
	var mu sync.Mutex // guards running
	load := measureLoad(func() []*harness.VM { mu.Lock(); defer mu.Unlock(); return running })
	on := time.Now()
	logins := make([]time.Time, s.n)
	g, all := errgroup.WithContext(ctx)
	for i := range s.n {
		g.Go(func() error {
			vm, err := lab.Start(all, b.roomConfig(s, segment, i))
			if err != nil {
				return err
			}
			mu.Lock()
			running = append(running, vm)
			mu.Unlock()
			if logins[i], err = b.roomLogin(all, vm, s); err == nil {
				b.progress.step("%s: login after %.1f s", vm.Name(), logins[i].Sub(on).Seconds())
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	sent := first.Port(0).Stats().SentBytes
	row := newRow(s)
	row.OthersBusy = load.others()
	row.FirstNodeBytes, row.ImageBytes = figures.Value(sent-sentBefore), figures.Value(info.Size())
	earliest, last := slices.MinFunc(logins, time.Time.Compare), slices.MaxFunc(logins, time.Time.Compare)
	row.FirstLogin, row.LastLogin = figures.Value(earliest.Sub(on).Seconds()), figures.Value(last.Sub(on).Seconds())
	b.progress.report("until the network is independent of the first node")
	if row.Independent, err = b.independence(ctx, first, last); err != nil {
		return nil, err
	}
	b.progress.line(row)
	return []Row{row}, nil
}

func (b *bench) roomConfig(s spec, segment *lan.Switch, i int) harness.Config {
	c := harness.Config{Name: fmt.Sprintf("node%d", i+1), Memory: memory, CPUs: s.cpus, Firmware: s.firmware, NICs: []harness.NIC{{LAN: segment}}}
	if s.image == "tiny" {
		c.Memory = tinyMemory
	}
	return c
}

// roomLogin waits for the login; tiny has none, and is ready when its services
// run.
func (b *bench) roomLogin(ctx context.Context, vm *harness.VM, s spec) (time.Time, error) {
	var err error
	if s.image == "tiny" {
		_, err = vm.WaitReady(ctx)
	} else {
		_, err = vm.WaitConsole(ctx, loginPrompt)
	}
	return time.Now(), err
}

// independence is the time from the last login until the first node may be
// switched off; less than 0 if that was so before. It is missing if that is not
// so after the limit.
func (b *bench) independence(ctx context.Context, first *harness.VM, last time.Time) (figures.Value, error) {
	limit, cancel := context.WithTimeoutCause(ctx, independenceLimit, errors.New("the room did not become independent of its first node"))
	defer cancel()
	rec, err := first.WaitFor(limit, "independence", func(rec event.Record) bool {
		e, ok := harness.As[event.Independence](rec)
		return ok && e.Independent
	})
	switch {
	case ctx.Err() != nil:
		return figures.None(), context.Cause(ctx)
	case err != nil:
		b.note("%v", err)
		return figures.None(), nil
	}
	return figures.Value(rec.At.Sub(last).Seconds()), nil
}
