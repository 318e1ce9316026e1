package cluster

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"

	"viver.lan/internal/identity/identitytest"
)

// Who floods a member with facts uses up its own checks, whether they come in
// packets or in states, and facts that are known cost nobody anything.
func TestChecksAreShared(t *testing.T) {
	c := &checks{fresh: func(name string, _ []byte) bool { return name != "known" }}
	judge, now := packetJudge{checks: c}, time.Now()
	flood := func(name string, from ...string) (passed int) {
		for i := range 2 * maxChecks {
			if c.allow(netip.MustParseAddr(from[i%len(from)]), name, nil, now) {
				passed++
			}
		}
		return passed
	}
	if n := flood("x", "10.0.0.1"); n != maxChecks/2 {
		t.Errorf("%d facts of a flood pass, want %d", n, maxChecks/2)
	}
	packet := aliveMessage("x", netip.MustParseAddrPort("10.0.0.3:7946"), nil, 1, 5, 2)
	if err := judge.judge(packet, netip.MustParseAddrPort("10.0.0.1:1"), now); err == nil {
		t.Error("after a flood its sender has checks in packets")
	}
	if err := judge.judge(packet, netip.MustParseAddrPort("10.0.0.2:1"), now); err != nil {
		t.Errorf("after a flood another has none: %v", err)
	}
	if n := flood("x", "10.0.0.2"); n != maxChecksEach-1 {
		t.Errorf("after a flood %d facts of another pass, want %d", n, maxChecksEach-1)
	}
	if n := flood("known", "10.0.0.1"); n != 2*maxChecks {
		t.Errorf("%d known facts pass, want all", n)
	}
	if n := flood("x", "10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.1.5", "10.0.1.6", "10.0.1.7", "10.0.1.8"); n != maxChecks/2-maxChecksEach {
		t.Errorf("%d more of many pass, want %d", n, maxChecks/2-maxChecksEach)
	}
	now = now.Add(time.Second)
	if n := flood("x", "10.0.0.1"); n != maxChecks/2 {
		t.Errorf("a second later %d facts pass, want %d", n, maxChecks/2)
	}
}

// What is too much in a state is left out, and the rest arrives.
func TestSift(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	s := newStream(near, labelHeader, slog.New(slog.DiscardHandler), func(*stream) {})
	s.checks = &checks{fresh: func(name string, _ []byte) bool { return name != "known" }}
	const words = "some words"
	nodes := []nodeState{{Name: "known", Meta: []byte("facts")}, {Name: "gone", State: 2}}
	for i := range maxChecks {
		nodes = append(nodes, nodeState{Name: fmt.Sprint(i), Port: 7946, Addr: []byte{10, 0, 0, 1}, Vsn: []byte{1, 5, 2, 0, 0, 0}})
	}
	go func() {
		defer far.Close()
		var all bytes.Buffer
		all.WriteString(labelHeader + string([]byte{msgPushPull}))
		_ = encodeState(&all, stateHeader{Nodes: len(nodes), UserStateLen: len(words), Join: true}, nodes)
		all.WriteString(words)
		_, _ = far.Write(all.Bytes())
	}()
	all, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	in := bytes.NewReader(all[len(labelHeader)+1:])
	dec := codec.NewDecoder(in, new(codec.MsgpackHandle))
	var header stateHeader
	if err := dec.Decode(&header); err != nil || header != (stateHeader{2 + maxChecks/2, len(words), true}) {
		t.Fatalf("%+v, %v", header, err)
	}
	for i := range header.Nodes {
		var n nodeState
		if err := dec.Decode(&n); err != nil || fmt.Sprint(n) != fmt.Sprint(nodes[i]) {
			t.Fatalf("%+v, want %+v; %v", n, nodes[i], err)
		}
	}
	if rest, err := io.ReadAll(in); string(rest) != words {
		t.Errorf("words %q, %v", rest, err)
	}
}

// Facts have to be checked when they are news.
func TestFreshFacts(t *testing.T) {
	key, at := identitytest.Key(t, "x"), netip.MustParseAddrPort("10.0.0.1:7946")
	facts := func(sequence uint64) []byte { return Meta{}.sign(key, at, sequence) }
	c := &Cluster{members: map[NodeID]Member{key.ID(): {sequence: 5, raw: string(facts(5))}}}
	for _, test := range []struct {
		name  string
		facts []byte
		fresh bool
	}{
		{string(key.ID()), facts(6), true},
		{string(key.ID()), facts(5), false},
		{string(key.ID()), facts(4), false},
		{"somebody", facts(1), true},
		{"somebody", []byte("junk"), false},
	} {
		if c.fresh(test.name, test.facts) != test.fresh {
			t.Errorf("%s, %d bytes: want fresh %v", test.name, len(test.facts), test.fresh)
		}
	}
}
