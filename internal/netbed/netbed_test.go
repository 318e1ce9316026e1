package netbed_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/netbed"
	"viver.lan/internal/netbed/netbedtest"
)

// deadline is generous: only broken things reach it.
const deadline = 2 * time.Minute

// unanswered is how long nothing has to come to count as cut off.
const unanswered = 300 * time.Millisecond

func TestNewRefusesTheHostsNetwork(t *testing.T) {
	if netbed.Inside() {
		t.Fatal("a plain test run is inside of nothing")
	}
	if bed, err := netbed.New(netbed.Config{Nodes: 1}); err == nil {
		bed.Close()
		t.Fatal("a bed was built in the host's network")
	}
}

// echo answers every line sent to a node's port 7 over TCP.
func echo(t *testing.T, n *netbed.Node) {
	t.Helper()
	l, err := n.Listen(t.Context(), "tcp", n.AddrPort(7).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
}

// ask reports whether to answers from on a new connection within d.
func ask(t *testing.T, from, to *netbed.Node, d time.Duration) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	c, err := from.Dial(ctx, "tcp", to.AddrPort(7).String())
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(d))
	if _, err := c.Write([]byte("hello")); err != nil {
		return false
	}
	got := make([]byte, 5)
	_, err = io.ReadFull(c, got)
	return err == nil && string(got) == "hello"
}

func newBed(t *testing.T, cfg netbed.Config) *netbed.Bed {
	t.Helper()
	bed, err := netbed.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bed.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	for _, n := range bed.Nodes() {
		echo(t, n)
	}
	return bed
}

// node 0, node 1, node 2 on one bridge
func TestNetnsCablesAndPartitions(t *testing.T) {
	if !netbedtest.Enter(t) {
		return
	}
	bed := newBed(t, netbed.Config{Nodes: 3})
	reach := func(what string, want [3]bool) { // 0-1, 0-2, 1-2
		t.Helper()
		for i, pair := range [][2]int{{0, 1}, {0, 2}, {1, 2}} {
			d := deadline
			if !want[i] {
				d = unanswered
			}
			if got := ask(t, bed.Node(pair[0]), bed.Node(pair[1]), d); got != want[i] {
				t.Errorf("%s: node %d reaches node %d: %t", what, pair[0], pair[1], got)
			}
		}
	}
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	reach("at first", [3]bool{true, true, true})
	try(bed.Node(1).SetLink(false))
	reach("cable of 1 pulled", [3]bool{false, true, false})
	try(bed.Node(1).SetLink(true))
	reach("cable of 1 back", [3]bool{true, true, true})
	try(bed.Partition([]int{2}))
	reach("2 apart", [3]bool{true, false, false})
	try(bed.Partition([]int{0}, []int{1, 2}))
	reach("0 apart from 1 and 2", [3]bool{false, false, true})
	try(bed.Heal())
	reach("healed", [3]bool{true, true, true})
}

func TestNetnsConnectionOutlivesAPulledCable(t *testing.T) {
	if !netbedtest.Enter(t) {
		return
	}
	bed := newBed(t, netbed.Config{Nodes: 2})
	c, err := bed.Node(0).Dial(t.Context(), "tcp", bed.Node(1).AddrPort(7).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := bed.Node(0).SetLink(false); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatalf("a pulled cable is no error: %v", err)
	}
	c.SetReadDeadline(time.Now().Add(unanswered))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read with the cable out: %v, want nothing", err)
	}
	if err := bed.Node(0).SetLink(true); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(deadline))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatalf("read with the cable back in: %v", err)
	}
}

// A link of 8 Mbit/s cannot pass 2 MB in less than 1.5 s, however slow the
// machine; without the limit it takes milliseconds.
func TestNetnsRateHoldsBothWays(t *testing.T) {
	if !netbedtest.Enter(t) {
		return
	}
	bed := newBed(t, netbed.Config{Nodes: 2})
	const size = 2 << 20
	send := func(from, to *netbed.Node) time.Duration {
		t.Helper()
		l, err := to.Listen(t.Context(), "tcp", to.AddrPort(9).String())
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := from.Dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		begin := time.Now()
		go c.Write(make([]byte, size))
		peer.SetDeadline(begin.Add(deadline))
		if _, err := io.CopyN(io.Discard, peer, size); err != nil {
			t.Fatal(err)
		}
		return time.Since(begin)
	}
	if err := bed.Node(0).SetRate(8e6); err != nil {
		t.Fatal(err)
	}
	if took := send(bed.Node(0), bed.Node(1)); took < 1500*time.Millisecond {
		t.Errorf("2 MB up at 8 Mbit/s took %s", took)
	}
	if took := send(bed.Node(1), bed.Node(0)); took < 1500*time.Millisecond {
		t.Errorf("2 MB down at 8 Mbit/s took %s", took)
	}
	if err := bed.Node(0).SetRate(0); err != nil {
		t.Fatal(err)
	}
	if err := bed.Node(0).SetRate(0); err != nil {
		t.Fatalf("no limit to take away: %v", err)
	}
	t.Logf("without a limit: %s", send(bed.Node(0), bed.Node(1)))
}

func TestNetnsProcessesLiveInTheirNode(t *testing.T) {
	if !netbedtest.Enter(t) {
		return
	}
	bed := newBed(t, netbed.Config{Nodes: 2})
	out, err := bed.Node(1).Command(t.Context(), "ip", "-4", "-o", "addr", "show").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "10.9.0.2/16") || bytes.Contains(out, []byte("10.9.0.1/")) {
		t.Fatalf("addresses of node 1: %v\n%s", err, out)
	}
	sleeper := bed.Node(0).Command(t.Context(), "sh", "-c", "sleep 1000 & wait")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	if err := bed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sleeper.Wait(); err == nil {
		t.Error("a process outlived its bed")
	}
	// The names are free for the next bed.
	again := newBed(t, netbed.Config{Nodes: 2, Rate: 1e9})
	if !ask(t, again.Node(0), again.Node(1), deadline) {
		t.Error("a second bed does not work")
	}
	if links, err := net.Interfaces(); err != nil || len(links) > 10 {
		t.Errorf("links left behind: %v %v", links, err)
	}
}

// here ---- there [namespace "far"]
func TestNetnsNamedNamespace(t *testing.T) {
	netbedtest.Need(t, "ip")
	if !netbedtest.Enter(t) {
		return
	}
	for _, line := range []string{"ip netns add far", "ip link add here type veth peer name there netns far"} {
		words := strings.Fields(line)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	look := func(name string) func() error {
		return func() error { _, err := net.InterfaceByName(name); return err }
	}
	if err := netbed.In("far", look("there")); err != nil {
		t.Error(err)
	}
	if err := look("here")(); err != nil {
		t.Errorf("after the way back: %v", err)
	}
	if err := netbed.In("nowhere", look("here")); err == nil {
		t.Error("ran in a namespace that is not there")
	}
}

// What a test starts lives on when the thread ends that started it, and ends
// with the test: as long as it lives, it holds a file's lock.
func TestNetnsProcessesEndWithTheTest(t *testing.T) {
	const mark = "VIVER_TEST_HELD"
	netbedtest.Need(t, "flock", "sleep")
	file := os.Getenv(mark)
	if !netbed.Inside() {
		file = filepath.Join(t.TempDir(), "held")
	}
	inside := netbedtest.Enter(t, mark+"="+file)
	lock, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	free := func() bool { return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil }
	if !inside {
		if !free() {
			t.Error("a process outlived its test")
		}
		return
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked, so the thread ends
		started <- exec.Command("flock", file, "sleep", "1000").Start()
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); free(); time.Sleep(10 * time.Millisecond) {
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_UN); err != nil {
			t.Fatal(err)
		}
		if time.Since(begin) > deadline {
			t.Fatal("the process does not take the lock")
		}
	}
}
