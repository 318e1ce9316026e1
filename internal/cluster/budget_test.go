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

	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
)

// Who floods a member with facts uses up its own part of the budget, whether they come in
// packets or in states, and facts that are known cost nobody anything.
func TestSignatureBudgetIsShared(t *testing.T) {
	budget := &signatureBudget{needed: func(name string, _ []byte) bool { return name != "known" }}
	filter, now := newPacketFilter(budget, nil), time.Now()
	flood := func(name string, from ...string) (passed int) {
		for i := range 2 * maxSignatures {
			if budget.allow(netip.MustParseAddr(from[i%len(from)]), name, nil, now) {
				passed++
			}
		}
		return passed
	}
	if n := flood("x", "10.0.0.1"); n != maxSignatures/2 {
		t.Errorf("%d facts of a flood pass, want %d", n, maxSignatures/2)
	}
	packet := aliveMessage(identitytest.Named("x"), netip.MustParseAddrPort("10.0.0.3:7946"), nil, 1, 5, 2)
	if err := filter.check(packet, netip.MustParseAddrPort("10.0.0.1:1"), now); err == nil {
		t.Error("after a flood its sender has budget for packets")
	}
	if err := filter.check(packet, netip.MustParseAddrPort("10.0.0.2:1"), now); err != nil {
		t.Errorf("after a flood another has none: %v", err)
	}
	if n := flood("x", "10.0.0.2"); n != maxSignaturesEach-1 {
		t.Errorf("after a flood %d facts of another pass, want %d", n, maxSignaturesEach-1)
	}
	if n := flood("known", "10.0.0.1"); n != 2*maxSignatures {
		t.Errorf("%d known facts pass, want all", n)
	}
	if n := flood("x", "10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.1.5", "10.0.1.6", "10.0.1.7", "10.0.1.8"); n != maxSignatures/2-maxSignaturesEach {
		t.Errorf("%d more of many pass, want %d", n, maxSignatures/2-maxSignaturesEach)
	}
	now = now.Add(time.Second)
	if n := flood("x", "10.0.0.1"); n != maxSignatures/2 {
		t.Errorf("a second later %d facts pass, want %d", n, maxSignatures/2)
	}
}

// What is too much in a state is left out, and the rest arrives.
func TestFilterState(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	budget := &signatureBudget{needed: func(name string, _ []byte) bool { return name != "known" }}
	s := newStream(near, labelHeader, netip.Addr{}, budget, slog.New(slog.DiscardHandler), func(*stream) {})
	const overrides = "some overrides"
	nodes := []nodeState{{Name: "known", Meta: []byte("facts")}, {Name: "gone", State: 2}}
	for i := range maxSignatures {
		nodes = append(nodes, nodeState{Name: fmt.Sprint(i), Port: 7946, Addr: []byte{10, 0, 0, 1}, Vsn: []byte{1, 5, 2, 0, 0, 0}})
	}
	go func() {
		defer far.Close()
		var all bytes.Buffer
		all.WriteString(labelHeader + string([]byte{msgPushPull}))
		_ = encodeState(&all, stateHeader{Nodes: len(nodes), UserStateLen: len(overrides), Join: true}, nodes)
		all.WriteString(overrides)
		_, _ = far.Write(all.Bytes())
	}()
	all, err := io.ReadAll(s)
	if err != nil {
		t.Fatal(err)
	}
	in := bytes.NewReader(all[len(labelHeader)+1:])
	dec := codec.NewDecoder(in, new(codec.MsgpackHandle))
	var header stateHeader
	if err := dec.Decode(&header); err != nil || header != (stateHeader{2 + maxSignatures/2, len(overrides), true}) {
		t.Fatalf("%+v, %v", header, err)
	}
	for i := range header.Nodes {
		var n nodeState
		if err := dec.Decode(&n); err != nil || fmt.Sprint(n) != fmt.Sprint(nodes[i]) {
			t.Fatalf("%+v, want %+v; %v", n, nodes[i], err)
		}
	}
	if rest, err := io.ReadAll(in); string(rest) != overrides {
		t.Errorf("overrides %q, %v", rest, err)
	}
}

// The signature of facts has to be verified when they are new.
func TestVerificationNeeded(t *testing.T) {
	key, at := identitytest.Key(t, "x"), netip.MustParseAddrPort("10.0.0.1:7946")
	facts := func(sequence uint64) []byte { return Meta{}.sign(key, at, sequence) }
	c := &Cluster{members: map[identity.ID]Member{key.ID(): {sequence: 5, raw: string(facts(5))}}}
	for _, test := range []struct {
		name   string
		facts  []byte
		needed bool
	}{
		{key.ID().String(), facts(6), true},
		{key.ID().String(), facts(5), false},
		{key.ID().String(), facts(4), false},
		{identitytest.ID("y").String(), facts(1), true},
		{"no ID", facts(1), false},
		{identitytest.ID("y").String(), []byte("junk"), false},
	} {
		if c.verificationNeeded(test.name, test.facts) != test.needed {
			t.Errorf("%s, %d bytes: want %v", test.name, len(test.facts), test.needed)
		}
	}
}
