package main

import (
	"fmt"
	"io"
	"net"
	"regexp"
	"sync"
	"testing"
	"time"

	"viver.lan/internal/control"
	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/swarm/wire"
)

// liar is a machine with a key of its own that says to everybody that it keeps
// the whole image, has none of it, and is good company in all else.
type liar struct {
	room *room
	key  identity.Key
	// answers says that it answers challenges, with noise.
	answers bool

	mu    sync.Mutex
	conns []net.Conn
	talks sync.WaitGroup
}

// lie lets a liar on node i connect to the machines.
func (r *room) lie(i int, answers bool, to ...*machine) *liar {
	r.t.Helper()
	l := &liar{room: r, key: identitytest.Key(r.t, fmt.Sprint("liar-", i)), answers: answers}
	r.t.Cleanup(l.leave)
	for _, m := range to {
		c, err := r.bed.Node(i).Dial(r.t.Context(), "tcp", m.swarm().String())
		if err != nil {
			r.t.Fatal(err)
		}
		l.conns = append(l.conns, c)
		l.talks.Go(func() { l.talk(c) })
	}
	return l
}

// leave ends all connections at once.
func (l *liar) leave() {
	for _, c := range l.conns {
		c.Close()
	}
	l.talks.Wait()
}

func (l *liar) send(c net.Conn, b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := c.Write(b)
	return err
}

func (l *liar) stayAlive(c net.Conn) {
	for l.send(c, wire.Message{KeepAlive: true}.Append(nil)) == nil {
		time.Sleep(time.Second)
	}
}

func (l *liar) greeting() []byte {
	key := l.key.Public()
	h := wire.Hello{Client: "VIVER", Block: l.room.info.PieceLength, Budget: l.room.info.Size, Key: key[:], Nonce: make([]byte, wire.NonceSize)}
	h.M.Proof, h.M.DontHave = wire.IDProof, wire.IDDontHave
	h.M.Challenge, h.M.Answer = wire.IDChallenge, wire.IDAnswer
	b := wire.Handshake{Infohash: l.room.info.Infohash, PeerID: wire.PeerIDOf(key), Fast: true, Extended: true}.Append(nil)
	return wire.Message{Type: wire.Unchoke}.Append(wire.Extension(wire.IDHandshake, h.Payload()).Append(wire.Message{Type: wire.HaveAll}.Append(b)))
}

func (l *liar) talk(c net.Conn) {
	if l.send(c, l.greeting()) != nil {
		return
	}
	l.talks.Go(func() { l.stayAlive(c) })
	if _, err := io.ReadFull(c, make([]byte, wire.HandshakeSize)); err != nil {
		return
	}
	r := wire.NewReader(c, wire.Limits{Pieces: l.room.info.NumPieces(), Block: int(l.room.info.PieceLength)})
	var hello wire.Hello
	for {
		m, err := r.Next()
		if err != nil {
			return
		}
		switch {
		case m.KeepAlive:
		case m.Type == wire.Request:
			_ = l.send(c, wire.Message{Type: wire.Reject, Block: m.Block}.Append(nil))
		case m.Type != wire.Extended:
		case m.ExtendedID == wire.IDHandshake:
			if hello, err = wire.ParseHello(m.Payload); err == nil && hello.CanProve() {
				s := wire.Statement{Infohash: l.room.info.Infohash, Signer: l.key.Public(), Verifier: identity.Public(hello.Key), Nonce: hello.Nonce,
					From: wire.AddressOf(c.LocalAddr()), To: wire.AddressOf(c.RemoteAddr())}
				_ = l.send(c, wire.Extension(hello.M.Proof, s.Sign(l.key)).Append(nil))
			}
		case m.ExtendedID == wire.IDChallenge && l.answers:
			if ask, err := wire.ParseChallenge(m.Payload, l.room.info.NumPieces()); err == nil {
				_ = l.send(c, wire.Extension(hello.M.Answer, wire.Answer{Piece: ask.Piece}.Payload()).Append(nil))
			}
		}
	}
}

// Four nodes keep two copies of each piece together. Four machines with keys come
// and claim that they keep all of it, the first node leaves, and then they do:
// nobody let a piece go for what they said, and they were named.
func TestNetnsLiarsLeaveTogether(t *testing.T) {
	t.Parallel()
	r := newRoom(t, 9, 100, 256)
	if r == nil {
		return
	}
	o := r.origin(0)
	nodes := r.small("12M", 1, 2, 3, 4)
	everybody := append(nodes, o)
	kept := func(s *control.Status) bool { return s.Independence.Independent && s.Independence.Replicas == 2 }
	r.all("two copies of each piece", everybody, kept)
	var liars []*liar
	for i := 5; i <= 8; i++ {
		liars = append(liars, r.lie(i, i%2 == 0, everybody...))
	}
	r.all("the liars are named", everybody, func(s *control.Status) bool { return len(s.ProofFailures) == len(liars) })
	r.all("their copies are not counted", everybody, kept)
	if !regexp.MustCompile(`msg="peer did not prove what it claims, its copies do not count" .*machine=\S+ reason="(did not answer|gave a wrong answer)`).MatchString(o.log.String()) {
		t.Error("the log names nobody")
	}
	o.kill()
	for _, l := range liars {
		l.leave()
	}
	r.all("nothing is lost", nodes, func(s *control.Status) bool { return s.OutOfReach == 0 && kept(s) })
	r.readAll(nodes)
}

// Three identities of one machine, each with the whole image at an address of its
// own, are one copy.
func TestNetnsOneMachineIsOneCopy(t *testing.T) {
	t.Parallel()
	r := newRoom(t, 3, 100, 64)
	if r == nil {
		return
	}
	o := r.origin(0)
	machines := []*machine{r.start(1, r.know(0)...), r.start(2, r.know(0)...)}
	for k := range 2 {
		addr := fmt.Sprintf("10.9.9.%d", k+1)
		if out, err := r.bed.Node(1).Command(t.Context(), "ip", "addr", "add", addr+"/32", "dev", "eth0").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		machines = append(machines, r.another(1, addr, k))
	}
	r.complete(machines...)
	until(t, "four have proved what they hold, on two machines", func() bool {
		s, err := o.status()
		if err != nil {
			return false
		}
		proved := 0
		for _, p := range s.Peers {
			if p.Proof == "proved" {
				proved++
			}
		}
		return proved == len(machines) && s.Independence.Replicas == 2
	})
	pieces, hashed := uint64(0), uint64(0)
	for _, m := range append(machines, o) {
		s, err := m.status()
		if err != nil {
			t.Fatal(err)
		}
		pieces += s.Transfer.FromOrigin + s.Transfer.FromPeers
		hashed += s.Proofs.Bytes
	}
	t.Logf("%.1f MB were exchanged and %.1f MB hashed for proofs", float64(pieces)/1e6, float64(hashed)/1e6)
}

// another starts one more vfield on node i, at another of its addresses.
func (r *room) another(i int, addr string, n int) *machine {
	r.t.Helper()
	return r.launch(r.bed.Node(i), fmt.Sprintf("node-%d-%d", i, n),
		append(r.know(0), "--listen", addr+":10809", "--swarm", addr+":6881")...)
}
