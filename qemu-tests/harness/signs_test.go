package harness

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"viver.lan/internal/event"
	"viver.lan/qemu-tests/harness/lan"
	"viver.lan/qemu-tests/harness/stall"
)

// Keepalives are no sign of life, and what is more is one.
func TestSurplus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		total := 1000.0
		s := newSurplus(100, func() float64 { return total })
		for _, test := range []struct {
			more float64
			want uint64
		}{{0, 0}, {100, 0}, {101, 1}, {50, 1}, {1e6, 2}, {0, 2}} {
			time.Sleep(time.Second)
			total += test.more
			if got := s.count(); got != test.want {
				t.Errorf("after %v more: %d, want %d", test.more, got, test.want)
			}
		}
		total = 0 // as when the process is gone
		if got := s.count(); got != 2 {
			t.Errorf("after the end: %d", got)
		}
	})
}

func TestParseStat(t *testing.T) {
	const stat = "42 (qemu) system) x86) S 1 42 42 0 -1 4194560 1 2 3 4 1234 66 7 8 20 0 3 0 100"
	if got := parseStat(stat); got != 13 {
		t.Errorf("%v s, want 13", got)
	}
	for _, bad := range []string{"", "42", "42 (x) S 1", ")"} {
		if got := parseStat(bad); got != 0 {
			t.Errorf("%q: %v s", bad, got)
		}
	}
	if processorSeconds(os.Getpid()) < 0 || processorSeconds(-1) != 0 {
		t.Error("the time of this process, or of none")
	}
}

// pair are two endpoints of a network.
func pair(t *testing.T) (a, b *lan.Endpoint) {
	t.Helper()
	sw := lan.New(nil)
	t.Cleanup(sw.Close)
	a, err := sw.Attach("guest")
	if err == nil {
		b, err = sw.Attach("neighbour")
	}
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

// bench is a machine without QEMU: a test is its guest.
func bench(t *testing.T, guest *lan.Endpoint) (vm *VM, console, events io.Writer) {
	t.Helper()
	l, _ := newLog(t)
	ours, theirs := net.Pipe()
	c, err := newConsole(ours, t.TempDir()+"/console")
	if err != nil {
		t.Fatal(err)
	}
	from, to := net.Pipe()
	vm = &VM{config: Config{Name: "node2"}, console: c, events: l, ports: []*lan.Port{guest.Port},
		process: &os.Process{Pid: -1}, stderr: &syncBuffer{}, changed: make(chan struct{}), done: make(chan struct{})}
	vm.readers.Go(c.run)
	vm.readers.Go(func() { l.read(from) })
	t.Cleanup(func() {
		theirs.Close()
		to.Close()
		vm.readers.Wait()
	})
	return vm, theirs, to
}

// counts asks all sources of a machine.
func counts(sources []stall.Source) map[string]uint64 {
	all := map[string]uint64{}
	for _, s := range sources {
		all[strings.Fields(s.Name)[0]] += s.Count()
	}
	return all
}

// Each of a machine's doings counts, and none of its neighbours' does.
func TestSignsOfLife(t *testing.T) {
	frames, neighbour := pair(t)
	vm, console, events := bench(t, frames)
	frame := append([]byte("\xff\xff\xff\xff\xff\xff\x52\x54\x00\x00\x00\x01"), make([]byte, 48)...)
	signs := vm.signs()
	before := counts(signs)
	if err := neighbour.Send(frame); err != nil {
		t.Fatal(err)
	}
	if _, err := frames.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := counts(signs); after["frames"] != before["frames"] {
		t.Errorf("a neighbour's broadcast counts: %v, then %v", before, after)
	}
	if err := frames.Send(frame); err != nil {
		t.Fatal(err)
	}
	if _, err := neighbour.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := counts(signs); after["frames"] != before["frames"]+1 {
		t.Errorf("the firmware's frame does not count: %v, then %v", before, after)
	}
	if _, err := io.WriteString(console, "Booting\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := vm.console.wait(t.Context(), regexp.MustCompile("Booting\n")); err != nil {
		t.Fatal(err)
	}
	log := event.NewLog("vfield", func() time.Duration { return time.Second }, events)
	log.Emit(event.Waiting{Reason: event.NoAnswer})
	log.Emit(event.Attached{Device: "/dev/nbd0"})
	if _, err := vm.events.wait(t.Context(), func(rec event.Record) bool { return rec.Kind == "attached" }); err != nil {
		t.Fatal(err)
	}
	if after := counts(signs); after["bytes"] != before["bytes"]+8 || after["events"] != before["events"]+1 {
		t.Errorf("of a text of 8 bytes, a read that waits and an event: %v, then %v", before, after)
	}
	// A kernel that runs sends keepalives.
	settled := counts(signs)
	if err := frames.Send(frame); err != nil {
		t.Fatal(err)
	}
	if _, err := neighbour.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := counts(signs); after["frames"] != settled["frames"] {
		t.Errorf("a node's keepalive counts: %v, then %v", settled, after)
	}
}

// The message says what was awaited, what came last and when.
func TestAWaitThatFailsSaysWhatCameLast(t *testing.T) {
	guest, _ := pair(t)
	vm, console, _ := bench(t, guest)
	if _, err := io.WriteString(console, "Booting from nothing"); err != nil {
		t.Fatal(err)
	}
	if _, err := vm.console.wait(t.Context(), regexp.MustCompile("nothing")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := stall.Watch(t.Context(), stall.Limits{}, vm.signs()...)
	defer cancel()
	_, err := vm.WaitConsole(ctx, "login: $")
	var silent *stall.Error
	if !errors.As(err, &silent) {
		t.Fatalf("waited with %v", err)
	}
	for _, want := range []string{"node2: waited ", `s for "login: $" on the console: nothing came for 0s: `, "events: 0 in all", "no event ever arrived", `20 in all, none since the wait began ("Booting from nothing")`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q lacks %q", err, want)
		}
	}
	if errors.Is(err, context.Canceled) {
		t.Errorf("%v passes for a wait that was given up", err)
	}
}
