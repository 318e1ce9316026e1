package show

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/event"
	"viver.lan/qemu-tests/harness"
)

var powerOn = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// at makes a record that arrived some seconds after power-on, from a kernel
// that started 10 s after it.
func at(t *testing.T, seconds float64, e event.Event) harness.Record {
	t.Helper()
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return harness.Record{
		Record: event.Record{Uptime: seconds - 10, Program: "uinit", Kind: e.Kind(), Data: data},
		At:     powerOn.Add(time.Duration(seconds * float64(time.Second))),
	}
}

// booted is a machine after a whole boot.
func booted(t *testing.T, name string) *Machine {
	m := &Machine{Name: name, Firmware: harness.BIOS, Boots: "CD", PowerOn: powerOn}
	for _, rec := range []harness.Record{
		at(t, 12, event.Stage{Name: "pseudofs", State: event.Started}),
		at(t, 12.5, event.Stage{Name: "pseudofs", State: event.Done, Seconds: 0.5}),
		at(t, 12.5, event.Stage{Name: "network", State: event.Started}),
		at(t, 14, event.Stage{Name: "network", State: event.Retrying, Detail: "no answer"}),
		at(t, 20, event.Stage{Name: "network", State: event.Done, Seconds: 7.5}),
		at(t, 20, event.Node{Hostname: "node-" + name, Address: "10.1.2.3", BootedBy: "iPXE", Firmware: "bios"}),
		at(t, 20, event.Stage{Name: "disks", State: event.Started}),
		at(t, 21, event.Stage{Name: "disks", State: event.Degraded, Seconds: 1, Detail: "no marker"}),
		at(t, 21, event.Attached{Device: "/dev/nbd0"}),
		at(t, 22, event.Stage{Name: "handover", State: event.Started}),
		at(t, 23, event.Transfer{FromOrigin: 22_400_000, FromPeers: 1_000_000, Have: 100, Pieces: 1300}),
	} {
		m.Take(rec)
	}
	return m
}

func TestMachineIsWhatItsEventsSay(t *testing.T) {
	m := &Machine{Name: "a", Firmware: harness.UEFI}
	if got := m.Line(powerOn); !strings.Contains(got, "waits for the first node") {
		t.Errorf("without power: %q", got)
	}
	m.PowerOn = powerOn
	steps := []struct {
		rec    harness.Record
		status string
		bar    string
	}{
		{harness.Record{At: powerOn.Add(time.Second), Record: event.Record{Uptime: 1, Kind: "news from the future"}}, "kernel", ""},
		{at(t, 12, event.Stage{Name: "pseudofs", State: event.Started}), "pseudofs", ">"},
		{at(t, 13, event.Stage{Name: "pseudofs", State: event.Done}), "pseudofs done", "="},
		{at(t, 13, event.Stage{Name: "network", State: event.Started}), "network", "=>"},
		{at(t, 14, event.Stage{Name: "network", State: event.Retrying, Detail: "no answer"}), "network, again: no answer", "=>"},
		{at(t, 14, event.Stage{Name: "disks", State: event.Started}), "network, again: no answer + disks", "=>>"},
		{at(t, 14, event.Stage{Name: "network", State: event.Degraded}), "disks", "=~>"},
		{at(t, 14, event.Stage{Name: "disks", State: event.Done}), "disks done", "=~="},
		{at(t, 14, event.Node{Hostname: "node-a", Address: "10.0.0.2"}), "disks done", "=~="},
		{at(t, 15, event.Stage{Name: "handover", State: event.Started}), "the distribution starts: node-a, 10.0.0.2", "=~=>"},
		// It boots again, and this time something is missing.
		{at(t, 30, event.Stage{Name: "pseudofs", State: event.Started}), "pseudofs", ">"},
		{at(t, 31, event.Stage{Name: "pseudofs", State: event.Stopped, Detail: "no /proc"}), "stopped at pseudofs: no /proc", "x"},
		{at(t, 40, event.Stage{Name: "pseudofs", State: event.Started}), "pseudofs", ">"},
	}
	if m.Status() != "firmware, boot program" {
		t.Errorf("before the first event: %q", m.Status())
	}
	for _, s := range steps {
		m.Take(s.rec)
		if m.Status() != s.status || m.bar() != s.bar {
			t.Errorf("after %s %s: %q and %q, want %q and %q", s.rec.Kind, s.rec.Data, m.Status(), m.bar(), s.status, s.bar)
		}
	}
}

func TestServesBootOnlyWithEveryService(t *testing.T) {
	m := &Machine{}
	for _, name := range []string{"dhcp", "http", "tftp"} {
		if m.ServesBoot() {
			t.Fatalf("serves before %s", name)
		}
		m.Take(at(t, 20, event.Service{Name: name, State: event.Started}))
	}
	if !m.ServesBoot() {
		t.Error("all services run, and it does not serve")
	}
	m.Take(at(t, 21, event.Service{Name: "tftp", State: event.Stopped}))
	if m.ServesBoot() {
		t.Error("serves without TFTP")
	}
}

func TestReport(t *testing.T) {
	first, node := booted(t, "first"), booted(t, "node1")
	first.Login = powerOn.Add(31 * time.Second)
	node.Node = event.Node{}
	var out bytes.Buffer
	err := Report(&out, []Machine{*first, *node}, []Check{
		{What: "names differ"}, {What: "addresses differ", Err: errors.New("both have 10.1.2.3")},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `MACHINE   FIRMWARE   BOOTED BY   HOSTNAME     ADDRESS    POWER-ON TO LOGIN
first     bios       iPXE        node-first   10.1.2.3   31 s
node1     bios       CD          -            -          the distribution starts

SECONDS PER STAGE    first           node1
power-on to kernel   10.0            10.0
kernel               2.0             2.0
pseudofs             0.5             0.5
network              7.5             7.5
disks                1.0 (without)   1.0 (without)
handover to login    9.0             -

BYTES OF THE IMAGE    first         node1
from the medium       0             0
from the first node   22.4 MB       22.4 MB
from other nodes      1.0 MB        1.0 MB
given to others       0             0
pieces held           100 of 1300   100 of 1300

  ok      names differ
  FAILED  addresses differ: both have 10.1.2.3
`
	if out.String() != want {
		t.Errorf("the report is\n%s\nwant\n%s", out.String(), want)
	}
}

func TestMissingNamesWhatIs(t *testing.T) {
	first, node, dead := booted(t, "first"), booted(t, "node1"), booted(t, "node2")
	first.Login, first.Task = powerOn.Add(31*time.Second), "reads its whole root disk"
	if got := Missing([]Machine{*first}, []Check{{What: "names differ"}}); got != nil {
		t.Errorf("nothing is missing, and yet: %q", got)
	}
	dead.Stopped = "stopped at root: no squashfs"
	got := Missing([]Machine{*first, *node, *dead, {Name: "node3"}}, []Check{{What: "addresses differ", Err: errors.New("both have 10.1.2.3")}})
	want := []string{
		"node1: the distribution starts: node-node1, 10.1.2.3",
		"node2: stopped at root: no squashfs",
		"node3: waits for the first node",
		"failed: addresses differ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("missing is\n%q\nwant\n%q", got, want)
	}
}

// Without a terminal, whoever waits is told now and then who is where.
func TestPlainOutputShowsProgress(t *testing.T) {
	var out bytes.Buffer
	b := NewBoard(&out)
	b.printed = powerOn
	first, node := booted(t, "first"), booted(t, "node1")
	first.Login, first.Task = powerOn.Add(31*time.Second), "reads its whole root disk"
	for _, m := range []*Machine{first, node, {Name: "node2"}, {Name: "node3", PowerOn: powerOn, Stopped: "not ready: kernel"}} {
		b.Add(m)
	}
	for seconds := 0; seconds <= 40; seconds++ {
		b.draw(powerOn.Add(time.Duration(seconds) * time.Second))
	}
	const first15 = "first     15.0 s  … ready: node-first, 10.1.2.3; reads its whole root disk\n" +
		"node1     15.0 s  … the distribution starts: node-node1, 10.1.2.3\n"
	if want := first15 + strings.ReplaceAll(first15, "15.0", "30.0"); out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
	first.Task, node.Login = "", powerOn
	if got := b.progress(powerOn.Add(time.Hour)); got != nil {
		t.Errorf("nobody waits, and yet: %q", got)
	}
}

func TestDistinct(t *testing.T) {
	of := func(m Machine) string { return m.Node.Address }
	machine := func(name, address string) Machine { return Machine{Name: name, Node: event.Node{Address: address}} }
	if err := distinct([]Machine{machine("a", "1"), machine("b", "2")}, "address", of); err != nil {
		t.Error(err)
	}
	if err := distinct([]Machine{machine("a", "1"), machine("b", "1")}, "address", of); err == nil || err.Error() != "a and b both have 1" {
		t.Error(err)
	}
	if err := distinct([]Machine{machine("a", "")}, "address", of); err == nil || err.Error() != "a never said its address" {
		t.Error(err)
	}
}

// screen interprets the few sequences that a board writes, as a terminal
// would.
func screen(written string) []string {
	var lines []string
	row := 0
	for written != "" {
		switch {
		case strings.HasPrefix(written, "\x1b["):
			n, end := 0, 2
			for written[end] >= '0' && written[end] <= '9' {
				n = n*10 + int(written[end]-'0')
				end++
			}
			if written[end] == 'A' {
				row -= n
			}
			written = written[end+1:]
		default:
			line, rest, _ := strings.Cut(written, "\n")
			for len(lines) <= row {
				lines = append(lines, "")
			}
			lines[row] = strings.TrimSuffix(line, "\x1b[K")
			row++
			written = rest
		}
	}
	return lines
}

func TestTerminalIsDrawnInPlace(t *testing.T) {
	var out bytes.Buffer
	b := NewBoard(&out)
	b.width = func() int { return 60 }
	b.Add(&Machine{Name: "first", Firmware: harness.BIOS, PowerOn: powerOn})
	b.Add(&Machine{Name: "node1", Firmware: harness.UEFI})
	b.draw(powerOn)
	b.Say("a sentence")
	b.Take("first", at(t, 12, event.Stage{Name: "network", State: event.Retrying, Detail: strings.Repeat("long ", 50)}))
	b.draw(powerOn.Add(12 * time.Second))
	b.Take("first", at(t, 13, event.Stage{Name: "network", State: event.Done}))
	b.draw(powerOn.Add(13 * time.Second))
	size := out.Len()
	b.draw(powerOn.Add(13 * time.Second))
	if out.Len() != size {
		t.Error("an unchanged picture was drawn again")
	}
	got := screen(out.String())
	want := []string{
		"a sentence",
		"first   bios    13.0 s  =                network done",
		"node1   uefi                             waits for the fir…",
	}
	if len(got) != len(want) {
		t.Fatalf("the terminal shows %q, want %q", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("line %d is %q, want %q", i, got[i], want[i])
		}
	}
}

func TestPlainOutputIsALinePerStage(t *testing.T) {
	var out bytes.Buffer
	b := NewBoard(&out)
	b.Add(&Machine{Name: "first", PowerOn: powerOn})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Run(ctx)
	}()
	b.Take("first", at(t, 12, event.Stage{Name: "network", State: event.Started}))
	b.Take("first", at(t, 13, event.Transfer{}))
	b.Take("first", at(t, 14, event.Stage{Name: "network", State: event.Done, Detail: "10.1.2.3"}))
	if err := b.Wait(ctx, "first", func(m *Machine) bool { return m.bar() == "=" }); err != nil {
		t.Error(err)
	}
	b.Take("first", at(t, 15, event.Stage{Name: "root", State: event.Stopped, Detail: "no squashfs"}))
	if err := b.Wait(ctx, "first", (*Machine).ServesBoot); err == nil || !strings.Contains(err.Error(), "no squashfs") {
		t.Errorf("waiting for a machine that stopped: %v", err)
	}
	cancel()
	<-done
	const want = "first     12.0 s  network started\nfirst     14.0 s  network done: 10.1.2.3\nfirst     15.0 s  root stopped: no squashfs\n"
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
}
