package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"viver.lan/internal/manifest"
	"viver.lan/internal/netbed"
	"viver.lan/internal/netbed/netbedtest"
	"viver.lan/internal/notify"

	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
)

// The tests in this file run members as processes, each in a network namespace
// of its own, all on one bridge.

// remote is a member in a process of its own.
type remote struct {
	cmd *exec.Cmd

	mu      sync.Mutex
	view    map[identity.ID]State // as it said last
	deaths  []string              // that it ever spoke of
	changed notify.Signal         // holds a token after each change
}

// launch runs the test binary, which cmd is, as a member.
func launch(t *testing.T, cmd *exec.Cmd, cfg Config) *remote {
	t.Helper()
	spec, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args = append(cmd.Args, "-test.run=^TestMemberProcess$")
	cmd.Env = append(os.Environ(), childMark+"="+string(spec))
	r := &remote{cmd: cmd, changed: notify.NewSignal()}
	r.cmd.Stderr = t.Output()
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for in := bufio.NewScanner(out); in.Scan(); {
			var view map[identity.ID]State
			if json.Unmarshal(in.Bytes(), &view) != nil {
				continue // the test binary has words of its own
			}
			r.mu.Lock()
			for id, s := range view {
				if s != Alive && r.view[id] == Alive {
					r.deaths = append(r.deaths, fmt.Sprintf("%s called %s %s", cfg.Meta.Hostname, id, s))
				}
			}
			r.view = view
			r.mu.Unlock()
			r.changed.Send()
		}
	}()
	t.Cleanup(func() {
		r.signal(t, syscall.SIGKILL)
		<-read
		_ = r.cmd.Wait() // killed
	})
	return r
}

func (r *remote) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		t.Error(err)
	}
}

// sees waits until the member knows exactly these as alive.
func (r *remote) sees(t *testing.T, what string, alive ...int) {
	t.Helper()
	deadline := time.After(3 * time.Minute)
	for {
		r.mu.Lock()
		var now []int
		for i := range 256 {
			if r.view[nodeID(i)] == Alive {
				now = append(now, i)
			}
		}
		r.mu.Unlock()
		if slices.Equal(now, alive) {
			return
		}
		select {
		case <-r.changed:
		case <-deadline:
			t.Fatalf("never: %s: sees %v alive, want %v", what, now, alive)
		}
	}
}

func everybody(t *testing.T, room []*remote, what string, alive ...int) {
	t.Helper()
	for _, i := range alive {
		room[i].sees(t, what, alive...)
	}
}

func upTo(n int) (out []int) {
	for i := range n {
		out = append(out, i)
	}
	return out
}

// inhabit runs a member in node i of a bed.
func inhabit(t *testing.T, bed *netbed.Bed, i int, infohash byte, seeds ...netip.AddrPort) *remote {
	t.Helper()
	node := bed.Node(i)
	return launch(t, node.Command(t.Context(), os.Args[0]), Config{
		Bind: node.Addr(), Port: DefaultPort, Network: netip.MustParsePrefix("10.9.0.0/16"),
		Seeds: seeds, Meta: Meta{Hostname: name(i), Infohash: manifest.Infohash{infohash}, Network: network},
	})
}

func newBed(t *testing.T, nodes int) *netbed.Bed {
	t.Helper()
	bed, err := netbed.New(netbed.Config{Nodes: nodes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bed.Close() })
	return bed
}

// crowd runs a member in each node of a bed and waits until they know each other.
func crowd(t *testing.T, n int) (*netbed.Bed, []*remote) {
	t.Helper()
	bed := newBed(t, n)
	var room []*remote
	for i := range n {
		room = append(room, inhabit(t, bed, i, 1, bed.Node(0).AddrPort(DefaultPort)))
	}
	everybody(t, room, "all are there", upTo(n)...)
	return bed, room
}

// Two machines that know nothing of each other meet; one with another image
// goes its own way.
func TestNetnsMachinesMeet(t *testing.T) {
	if !netbedtest.Enter(t) {
		return
	}
	bed := newBed(t, 3)
	begin := time.Now()
	room := []*remote{inhabit(t, bed, 0, 1), inhabit(t, bed, 1, 1), inhabit(t, bed, 2, 2)}
	everybody(t, room, "both have met", 0, 1)
	t.Logf("met after %.1f s", time.Since(begin).Seconds())
	room[2].sees(t, "nobody", 2)
}

// A room is cut in two, for so long that both halves have given each other up
// and gossip no more to those they lost. Then the cable is back.
func TestNetnsPartitionHeals(t *testing.T) {
	if !netbedtest.Enter(t) {
		return
	}
	const n = 8
	bed, room := crowd(t, n)
	if err := bed.Partition([]int{0, 1, 2}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	everybody(t, room, "one half", 0, 1, 2)
	everybody(t, room, "the other half", 3, 4, 5, 6, 7)
	t.Logf("each half has given the other up after %.1f s", time.Since(begin).Seconds())
	time.Sleep(time.Until(begin.Add(50 * time.Second)))
	if err := bed.Heal(); err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	everybody(t, room, "one room again", upTo(n)...)
	t.Logf("all see all %.1f s after the cable is back", time.Since(begin).Seconds())
}

// A machine that is busy, or frozen for a moment, is not dead.
func TestNetnsNobodyDiesOfWork(t *testing.T) {
	if !netbedtest.Enter(t) {
		return
	}
	const n = 24
	_, room := crowd(t, n)
	ctx, cancel := context.WithCancel(t.Context())
	var hogs sync.WaitGroup
	for range 3 * runtime.NumCPU() {
		hogs.Go(func() {
			for ctx.Err() == nil {
			}
		})
	}
	for _, frozen := range [][]*remote{room[1:2], room[4:9]} {
		for _, r := range frozen {
			r.signal(t, syscall.SIGSTOP)
		}
		time.Sleep(3 * time.Second)
		for _, r := range frozen {
			r.signal(t, syscall.SIGCONT)
		}
		time.Sleep(4 * time.Second)
	}
	cancel()
	hogs.Wait()
	everybody(t, room, "all are there", upTo(n)...)
	for _, r := range room {
		r.mu.Lock()
		for _, d := range r.deaths {
			t.Error(d)
		}
		r.mu.Unlock()
	}
}

const childMark = "VIVER_TEST_MEMBER"

// TestMemberProcess is the body of a member process; by itself it does nothing.
// Each line it prints is what it knows of all members.
func TestMemberProcess(t *testing.T) {
	what, ok := os.LookupEnv(childMark)
	if !ok {
		return
	}
	var cfg Config
	if err := json.Unmarshal([]byte(what), &cfg); err != nil {
		t.Fatal(err)
	}
	cfg.Key, cfg.Start = identitytest.Key(t, cfg.Meta.Hostname), 1
	c, _ := start(t, cfg)
	changed, stop := c.Watch()
	defer stop()
	for {
		view := make(map[identity.ID]State)
		for _, m := range c.Members() {
			view[m.ID] = m.State
		}
		line, err := json.Marshal(view)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%s\n", line)
		<-changed // until it is killed
	}
}
