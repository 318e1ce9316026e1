package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"viver.lan/internal/event"
	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/manifest"
)

func image() manifest.Infohash { return manifest.Infohash{0xaa} }

func name(n int) string { return fmt.Sprintf("node-%d", n) }

func nodeID(n int) identity.ID { return identitytest.ID(name(n)) }

func (c *Cluster) id() identity.ID { return c.cfg.Key.ID() }

// network is what the network of these tests is called.
const network = "testing"

func config(t *testing.T, n int, seeds ...netip.AddrPort) Config {
	return Config{
		Key:        identitytest.Key(t, name(n)),
		Start:      1,
		Bind:       netip.AddrFrom4([4]byte{127, 0, 0, byte(n)}),
		Network:    netip.MustParsePrefix("127.0.0.0/8"),
		Seeds:      seeds,
		Meta:       Meta{Hostname: name(n), SwarmPort: 6881, Infohash: image(), Network: network},
		Log:        slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
		retryEvery: time.Second,
	}
}

// start runs a node until the test or stop ends it, without a goodbye.
func start(t *testing.T, cfg Config) (c *Cluster, stop func()) {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(stop)
	return c, stop
}

// waitFor waits for changes until the members are as the test wants them.
func waitFor(t *testing.T, c *Cluster, what string, holds func(map[identity.ID]Member) bool) {
	t.Helper()
	changed, stop := c.Watch()
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for {
		byID := make(map[identity.ID]Member)
		for _, m := range c.Members() {
			byID[m.ID] = m
		}
		if holds(byID) {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			for _, m := range c.Members() {
				t.Logf("%s %s at %s: %+v, sequence %d, listed %v", m.State, m.ID, m.Addr, m.Meta, m.sequence, m.listed)
			}
			t.Fatalf("never: %s", what)
		}
	}
}

func alive(ids ...identity.ID) func(map[identity.ID]Member) bool {
	return func(m map[identity.ID]Member) bool {
		for _, id := range ids {
			if m[id].State != Alive {
				return false
			}
		}
		return true
	}
}

func became(state State, id identity.ID) func(map[identity.ID]Member) bool {
	return func(m map[identity.ID]Member) bool { return m[id].State == state }
}

func TestJoinUpdateLeave(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	one := config(t, 11)
	one.Meta.First = true
	one.Events = event.NewLog("test", func() time.Duration { return 0 }, &log)
	first, stopFirst := start(t, one)
	second, _ := start(t, config(t, 12, first.Addr()))
	// The third knows the second only, and meets the first by gossip.
	other := config(t, 13, second.Addr())
	other.Meta.Infohash = manifest.Infohash{0xbb}
	third, _ := start(t, other)

	for _, c := range []*Cluster{first, second, third} {
		waitFor(t, c, "all three are there", alive(nodeID(11), nodeID(12), nodeID(13)))
	}
	waitFor(t, third, "facts", func(m map[identity.ID]Member) bool {
		a := m[nodeID(11)]
		return reflect.DeepEqual(a.Meta, one.Meta) && a.Addr == first.Addr() && a.otherImage && !a.Self && m[nodeID(13)].Self
	})
	if p := second.Peers(); len(p) != 1 || p[0].ID != nodeID(11) {
		t.Errorf("peers of the second: %+v, want the first only: the third runs another image", p)
	}

	// The third changes over to our image.
	other.Meta.Infohash = image()
	if err := third.UpdateMeta(t.Context(), func(m *Meta) { *m = other.Meta }); err != nil {
		t.Fatal(err)
	}
	waitFor(t, first, "the third is a peer now", func(m map[identity.ID]Member) bool { return !m[nodeID(13)].otherImage })
	waitFor(t, second, "the third is a peer now", func(m map[identity.ID]Member) bool { return !m[nodeID(13)].otherImage })
	if p := third.Peers(); len(p) != 2 {
		t.Errorf("peers of the third: %+v", p)
	}

	if err := third.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, first, "the third said goodbye", became(Left, nodeID(13)))
	waitFor(t, second, "the third said goodbye", became(Left, nodeID(13)))

	stopFirst()
	var kinds []string
	for line := range strings.Lines(log.String()) {
		var r event.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		e, err := r.Decode()
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, fmt.Sprint(e))
	}
	if n := len(kinds); n != 3 { // two joined, one left; being itself is no event
		t.Errorf("events: %q", kinds)
	}
	if err := first.Leave(t.Context()); err == nil {
		t.Error("a closed cluster can be left")
	}
	if err := first.UpdateMeta(t.Context(), func(m *Meta) { *m = Meta{} }); err == nil {
		t.Error("a closed cluster can be updated")
	}
}

// A member that has said that it is about to be switched off stays one until it does not
// answer; then it has left, and its names are free. One that comes back is no such member.
func TestSwitchedOffIsNoDeath(t *testing.T) {
	t.Parallel()
	first, _ := start(t, config(t, 14))
	off, stopOff := start(t, config(t, 15, first.Addr()))
	dies, stopDies := start(t, config(t, 16, first.Addr()))
	waitFor(t, first, "all are there", alive(nodeID(15), nodeID(16)))
	if err := off.AnnounceOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, first, "it is announced", func(m map[identity.ID]Member) bool {
		return m[nodeID(15)].Meta.announced && m[nodeID(15)].State == Alive
	})
	if s := dies.size(); s != 3 {
		t.Errorf("%d members, want 3: the announcement is no goodbye yet", s)
	}
	stopOff()
	stopDies()
	waitFor(t, first, "one has left, one died", func(m map[identity.ID]Member) bool { return m[nodeID(15)].State == Left && m[nodeID(16)].State == Dead })

	again := config(t, 15, first.Addr())
	again.Start = 2
	_, stopAgain := start(t, again)
	waitFor(t, first, "it is back", alive(nodeID(15)))
	stopAgain()
	waitFor(t, first, "it died this time", became(Dead, nodeID(15)))
}

func TestSeedThatComesLate(t *testing.T) {
	t.Parallel()
	c, _ := start(t, config(t, 21))
	late, _ := start(t, config(t, 22))
	c.addSeeds(late.Addr())
	waitFor(t, c, "the seed added later", alive(nodeID(22)))
}

func TestGarbageIsIgnored(t *testing.T) {
	t.Parallel()
	a, _ := start(t, config(t, 31))
	b, _ := start(t, config(t, 32, a.Addr()))
	waitFor(t, a, "both", alive(nodeID(31), nodeID(32)))
	udp, err := net.Dial("udp", a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	random := rand.NewChaCha8([32]byte{1})
	for i := range 500 {
		junk := make([]byte, 1+i*2)
		_, _ = random.Read(junk)
		if i%2 == 0 {
			junk = append([]byte("\xf4\x07viver/1"), junk...) // behind a right label
		}
		_, _ = udp.Write(junk)
		if i%50 == 0 {
			tcp, err := net.Dial("tcp", a.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = tcp.Write(junk)
			_ = tcp.Close()
		}
	}
	// Gossip goes on in both directions.
	meta := Meta{Hostname: "renamed", Infohash: image(), Network: network}
	if err := b.UpdateMeta(t.Context(), func(m *Meta) { *m = meta }); err != nil {
		t.Fatal(err)
	}
	waitFor(t, a, "an update after the garbage", func(m map[identity.ID]Member) bool { return reflect.DeepEqual(m[nodeID(32)].Meta, meta) })
	if n := len(a.Members()); n != 2 {
		t.Errorf("%d members: %+v", n, a.Members())
	}
}

func TestNewRefusesNonsense(t *testing.T) {
	good := config(t, 41)
	for name, edit := range map[string]func(*Config){
		"no key":      func(c *Config) { c.Key = identity.Key{} },
		"any address": func(c *Config) { c.Bind = netip.IPv4Unspecified() },
		"no address":  func(c *Config) { c.Bind = netip.Addr{} },
		"host name":   func(c *Config) { c.Meta.Hostname = "a b" },
		"not ours":    func(c *Config) { c.Bind = netip.MustParseAddr("192.0.2.1") },
	} {
		cfg := good
		edit(&cfg)
		if c, err := New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
			_ = c.Close()
		}
	}
}

// TestDeathAndPartition kills and freezes a node in a process of its own: a
// frozen one is what a pulled cable looks like to the others, and when it wakes
// it still believes in its own past.
func TestDeathAndPartition(t *testing.T) {
	t.Parallel()
	a, _ := start(t, config(t, 51))
	b, _ := start(t, config(t, 52, a.Addr()))
	child := spawn(t, 53, a.Addr())
	waitFor(t, a, "three", alive(nodeID(51), nodeID(52), nodeID(53)))
	waitFor(t, b, "three", alive(nodeID(51), nodeID(52), nodeID(53)))

	signal := func(s syscall.Signal) {
		if err := child.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	waitFor(t, a, "the frozen node counts as dead", became(Dead, nodeID(53)))
	waitFor(t, b, "the frozen node counts as dead", became(Dead, nodeID(53)))
	signal(syscall.SIGCONT)
	waitFor(t, a, "it is back", became(Alive, nodeID(53)))
	waitFor(t, b, "it is back", became(Alive, nodeID(53)))

	signal(syscall.SIGKILL)
	waitFor(t, a, "the killed node counts as dead", became(Dead, nodeID(53)))
	if m := a.Members(); len(m) != 3 {
		t.Errorf("the dead are not remembered: %+v", m)
	}
}

// TestRejoin: a node comes back under its old address and knows nobody; the
// others find it, because they remember.
func TestRejoin(t *testing.T) {
	t.Parallel()
	a, _ := start(t, config(t, 61))
	b, stopB := start(t, config(t, 62, a.Addr()))
	waitFor(t, a, "both", alive(nodeID(61), nodeID(62)))
	addr := b.Addr()
	stopB()
	waitFor(t, a, "the second is gone", became(Dead, nodeID(62)))
	cfg := config(t, 62)
	cfg.Start++
	cfg.Port = addr.Port()
	again, _ := start(t, cfg)
	waitFor(t, a, "it is found again", became(Alive, nodeID(62)))
	waitFor(t, again, "and knows who found it", alive(nodeID(61), nodeID(62)))
}

// spawn runs a node in a process of its own.
func spawn(t *testing.T, n int, seed netip.AddrPort) *exec.Cmd {
	t.Helper()
	cfg := config(t, n, seed)
	cfg.Log = nil
	return launch(t, exec.CommandContext(t.Context(), os.Args[0]), cfg).cmd
}
