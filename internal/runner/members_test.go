package runner

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"viver.lan/internal/control"
	"viver.lan/internal/ether"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/roles"
	"viver.lan/internal/runes"
)

func member(i byte) control.Member {
	return control.Member{ID: identitytest.ID(string('a' + i)), Hostname: "node-" + string('a'+i), MAC: ether.MAC{2, 0, 0, 0, 0, i}, State: control.Alive,
		Address: netip.AddrFrom4([4]byte{10, 77, 0, i}), HTTPPort: 80, Memory: 2 << 30, CPUs: 2, TakesRoles: true}
}

func statusOf(self byte, members ...control.Member) *control.Status {
	return &control.Status{ID: identitytest.ID(string('a' + self)), Network: "lab", Members: members, Up: "init"}
}

func TestFactsOf(t *testing.T) {
	mine, other, dead, disputed, evil, again := member(0), member(1), member(2), member(3), member(4), member(5)
	again.NameState = control.Unconfirmed
	mine.Labels, mine.Hostname = []string{"storage"}, "zebra"
	other.Roles = []roles.Name{{Rune: "a", Role: "server"}}
	dead.State, disputed.NameState, evil.Hostname = control.Dead, control.Disputed, "a b"
	left := member(6)
	left.State = control.Left
	f, wrong := factsOf(runes.Facts{Hostname: "zebra", Init: "systemd"}, *statusOf(0, mine, other, dead, disputed, evil, again, left), []roles.Name{{Rune: "b", Role: "x"}})
	if len(wrong) != 1 {
		t.Errorf("%v", wrong)
	}
	if len(f.Members) != 2 || f.Members[0].Hostname != "node-b" || f.Members[0].Memory != 2048 || !slices.Equal(f.Members[0].Roles, []string{"a/server"}) {
		t.Fatalf("%+v", f.Members)
	}
	if !slices.Equal(f.Members[1].Roles, []string{"b/x"}) || !slices.Equal(f.Labels, []string{"storage"}) || f.Network != "lab" || f.Init != "systemd" || f.Address != "10.77.0.0" {
		t.Errorf("%+v", f)
	}
	if !slices.Equal(f.Unconfirmed, []string{"10.77.0.5"}) {
		t.Errorf("unconfirmed: %q", f.Unconfirmed)
	}
	if !slices.Equal(f.Left, []string{left.ID.String()}) || f.Members[0].ID != other.ID.String() {
		t.Errorf("left: %q, and the first member is %q", f.Left, f.Members[0].ID)
	}
	if d := digest(f.Members, nil); d == digest(f.Members[:1], nil) || d == digest(f.Members, f.Unconfirmed) || d != digest(slices.Clone(f.Members), nil) {
		t.Error("the digest does not tell lists of members apart")
	}
}

// A machine waits for the members, not for ever, and not again.
func TestSettling(t *testing.T) {
	start := time.Now()
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	var s settling
	for _, step := range []struct {
		at      float64
		members string
		wait    time.Duration
	}{
		{0, "a", 5 * time.Second},
		{4, "a b", 3 * time.Second},
		{6, "a b", time.Second},
		{6.5, "a b c", 3 * time.Second},
		{9.5, "a b c", 0},
		{10, "a", 0},
	} {
		if wait := s.saw(step.members, at(step.at)); wait != step.wait {
			t.Errorf("after %v s with %q: wait %v, want %v", step.at, step.members, wait, step.wait)
		}
	}
	s = settling{}
	for i := range 15 {
		if s.saw(string(rune('a'+i)), at(float64(i))) == 0 {
			t.Fatalf("settled after %d s, while members come", i)
		}
	}
	if wait := s.saw("z", at(15)); wait != 0 {
		t.Errorf("waits for %v more", wait)
	}
	s.lost()
	if wait := s.saw("z", at(20)); wait != settleFirst || !s.before {
		t.Errorf("after the block daemon was lost it waits for %v, and it is %t that the members were known once", wait, s.before)
	}
}

// A status that came after a time without a block daemon says so, even when nobody took
// it before the next one.
func TestWatchSaysThatTheDaemonWasLost(t *testing.T) {
	words := make(chan word, 1)
	c := Config{Log: slog.New(slog.DiscardHandler), Network: lostNetwork{}}
	if err := c.watch(t.Context(), words); err != nil {
		t.Fatal(err)
	}
	if w := <-words; !w.again || w.status.Hostname != "second" {
		t.Errorf("%+v", w)
	}
}

// lostNetwork is a block daemon that does not answer at first.
type lostNetwork struct{ Network }

func (lostNetwork) WatchMembers(_ context.Context, take func(*control.Status, error) error) error {
	return errors.Join(take(nil, errors.New("gone")), take(&control.Status{Hostname: "first"}, nil), take(&control.Status{Hostname: "second"}, nil))
}
