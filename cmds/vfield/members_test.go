package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/control"
	"viver.lan/internal/ether"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/operator"
	"viver.lan/internal/sign"
)

// sign makes an owner, signs the room's image, and returns the owner's key and
// where its public half lies.
func (r *room) sign() (owner sign.PrivateKey, public string) {
	r.t.Helper()
	owner, err := sign.Generate()
	if err != nil {
		r.t.Fatal(err)
	}
	m := manifest.Manifest{Format: manifest.Format, Name: "room", Created: time.Unix(1e9, 0).UTC(), Infohash: r.info.Infohash,
		PieceLength: metainfo.MinPieceLength, Files: []manifest.FileInfo{{Name: manifest.Root, Size: int64(len(r.data))}}}
	var text bytes.Buffer
	if err := m.Write(&text); err != nil {
		r.t.Fatal(err)
	}
	dir := filepath.Dir(r.metainfo)
	public = filepath.Join(dir, sign.PublicKeyFile)
	for name, data := range map[string][]byte{
		filepath.Join(dir, manifest.File):      text.Bytes(),
		filepath.Join(dir, manifest.Signature): owner.Sign(sign.Manifest, text.Bytes()),
		public:                                 owner.Public().Text(),
	} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			r.t.Fatal(err)
		}
	}
	return owner, public
}

// member returns what m thinks of the member with that name.
func (m *machine) member(name string) (found control.Member) {
	s, err := m.status()
	if err != nil {
		return found
	}
	for _, other := range s.Members {
		if other.Hostname == name {
			return other
		}
	}
	return found
}

// network is the name that m's network has.
func (m *machine) network() string {
	s, err := m.status()
	if err != nil {
		return ""
	}
	return s.Network
}

// heard reports whether m knows that entry of the operator's and no other.
func (m *machine) heard(e operator.Override) bool {
	s, err := m.status()
	return err == nil && len(s.Overrides) == 1 && s.Overrides[0].Value == e.Value
}

// forgedDeath is a message of the gossip that calls a member dead, in a way
// that it cannot contradict: no later message has a greater number.
func forgedDeath(who string) []byte { // the ID of a member
	p := append([]byte("\xf4\x07viver/1\x05"), 0x83)
	p = append(append(p, 0xab), "Incarnation"...)
	p = binary.BigEndian.AppendUint32(append(p, 0xce), 1<<32-1)
	p = append(append(p, 0xa4), "Node"...)
	p = append(append(p, 0xa0|byte(len(who))), who...)
	p = append(append(p, 0xa4), "From"...)
	return append(append(p, 0xa1), 'x')
}

// Nodes that are told of nobody find each other on the link, and with that the
// image. What a stranger says of them changes nothing, what the operator says
// reaches all. One that dies is called dead; one that loses its place in the
// list keeps the connection that delivers.
func TestNetnsMembership(t *testing.T) {
	t.Parallel()
	r := newRoom(t, 4, 60, 128)
	if r == nil {
		return
	}
	owner, public := r.sign()
	gossip := func(i int) []string {
		return []string{"--gossip", r.bed.Node(i).AddrPort(gossipPort).String(), "--public", public}
	}
	nodes := []*machine{r.origin(0, gossip(0)...), r.start(1, gossip(1)...), r.start(2, gossip(2)...)}
	r.complete(nodes...)
	until(t, "node 2 is a member", func() bool { return !nodes[0].member("node-2").ID.IsZero() })

	// A stranger on the link calls node 2 dead, again and again.
	stranger := r.bed.Node(3)
	for i := range nodes {
		c, err := stranger.Dial(t.Context(), "udp", r.bed.Node(i).AddrPort(gossipPort).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 3 {
			if _, err := c.Write(forgedDeath(nodes[0].member("node-2").ID.String())); err != nil {
				t.Fatal(err)
			}
		}
	}
	// What a node says of node 2 and how many peers it has; a busy node may not
	// answer in time.
	of := func(m *machine) (state control.MemberState, peers int, ok bool) {
		s, err := m.status()
		if err != nil {
			return "", 0, false
		}
		for _, other := range s.Members {
			if other.Hostname == "node-2" {
				state = other.State
			}
		}
		return state, len(s.Peers), true
	}
	for _, m := range nodes[:2] {
		until(t, "all are members and peers", func() bool {
			state, peers, _ := of(m)
			return state == "alive" && peers == 2
		})
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		for _, m := range nodes[:2] {
			if state, peers, ok := of(m); ok && (state != "alive" || peers != 2) {
				t.Fatalf("on a stranger's word node %d calls node 2 %q and has %d peers", m.node.Index(), state, peers)
			}
		}
	}

	if err := control.NewClient(nodes[1].socket).BeginNetwork(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "the network has a name", func() bool { return nodes[0].network() != "" && nodes[0].network() == nodes[2].network() })
	e := operator.Override{Network: nodes[0].network(), Key: operator.NameOf(ether.MAC{0x52, 0x54, 5: 2}), Value: "lab-2", Sequence: 1}
	e.Signature = owner.Sign(sign.Override, e.SignedBytes())
	forged := operator.Override{Network: e.Network, Key: e.Key, Value: "evil", Sequence: 2, Signature: e.Signature}
	elsewhere := operator.Override{Network: "another", Key: e.Key, Value: "old", Sequence: 3}
	elsewhere.Signature = owner.Sign(sign.Override, elsewhere.SignedBytes())
	for _, try := range []struct {
		e  operator.Override
		ok bool
	}{{e, true}, {forged, false}, {elsewhere, false}} {
		if err := control.NewClient(nodes[0].socket).PutOverride(t.Context(), try.e); (err == nil) != try.ok {
			t.Errorf("%s: %v", try.e.Value, err)
		}
	}
	until(t, "the operator's word is known to all", func() bool {
		return nodes[1].heard(e) && nodes[2].heard(e)
	})

	nodes[2].kill()
	begin := time.Now()
	for _, m := range nodes[:2] {
		until(t, "the dead node is called dead", func() bool { return m.member("node-2").State == "dead" })
	}
	t.Logf("called dead after %.1f s", time.Since(begin).Seconds())
	nodes[2].run()
	until(t, "it is back, and heard again what the operator said", func() bool {
		m := nodes[0].member("node-2")
		return m.State == "alive" && m.NameState == "" && nodes[2].heard(e)
	})
	r.complete(nodes...)
	if log := nodes[0].log.String(); strings.Count(log, "state=dead") != 1 {
		t.Errorf("node 0 saw deaths other than one:\n%s", log)
	}
}
