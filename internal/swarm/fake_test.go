package swarm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"viver.lan/internal/exchange"
	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/journal"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/swarm/wire"
)

const testPiece = 64 << 10

func newImage(t testing.TB, pieces int) (*metainfo.Info, []byte) {
	t.Helper()
	data := make([]byte, pieces*testPiece-1000)
	rand.NewChaCha8([32]byte{9}).Read(data)
	p := filepath.Join(t.TempDir(), "root")
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
	_, info, err := metainfo.Create("x", []metainfo.Source{{Name: "root.squashfs", Path: p}}, testPiece, nil)
	if err != nil {
		t.Fatal(err)
	}
	return info, data
}

// memStore is a Store in memory.
type memStore struct {
	mu     sync.Mutex
	pieces map[int][]byte
}

func (m *memStore) Put(i int, parts [][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pieces[i] = bytes.Join(parts, nil)
	return nil
}

func (m *memStore) Has(i int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pieces[i] != nil
}

func (m *memStore) Open(_ context.Context, i int, _ bool) (Piece, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pieces[i] == nil {
		return nil, errors.New("not here")
	}
	return memPiece(m.pieces[i]), nil
}

func (m *memStore) lose(i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pieces, i)
}

func (m *memStore) Unreadable(int, error) {}

func (m *memStore) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.pieces)
}

type memPiece []byte

func (memPiece) File() (*os.File, int64) { return nil, 0 }
func (p memPiece) Bytes() []byte         { return p }
func (memPiece) Release()                {}

// testSwarm is one of our nodes; a seeder when data is given.
type testSwarm struct {
	*Swarm
	store *memStore
	log   *journal.Journal
}

func wantAll(s *Swarm) {
	s.Do(func(x *exchange.Exchange) { x.Want(0, s.cfg.Info.NumPieces(), func(int) bool { return true }) })
}

func (s *testSwarm) wantNothing() {
	s.Do(func(x *exchange.Exchange) { x.Want(0, s.cfg.Info.NumPieces(), func(int) bool { return false }) })
}

func (s *testSwarm) AddPeer(addr netip.AddrPort, origin bool) {
	s.Do(func(x *exchange.Exchange) { x.AddPeer(addr, origin) })
}

func (s *testSwarm) Demand(i int) { s.Do(func(x *exchange.Exchange) { x.Demand(i, true) }) }

func (s *testSwarm) Status() (peers []exchange.PeerStatus, stats exchange.Stats) {
	s.Do(func(x *exchange.Exchange) { peers, stats = x.Status() })
	return peers, stats
}

func (s *testSwarm) Neighbours() []exchange.Neighbour {
	return Ask(s.Swarm, (*exchange.Exchange).Neighbours)
}

// waiting says why piece i is not here, and known how many peers are known.
func (s *testSwarm) waiting(i int) string {
	return Ask(s.Swarm, func(x *exchange.Exchange) string { return x.Waiting(i).String() })
}

func (s *testSwarm) known() int {
	return Ask(s.Swarm, func(x *exchange.Exchange) int { return x.Waiting(0).Known })
}

func (s *testSwarm) OutOfReach() (pieces int, origin bool) {
	s.Do(func(x *exchange.Exchange) { pieces, origin = x.OutOfReach() })
	return pieces, origin
}

func start(t testing.TB, info *metainfo.Info, name string, data []byte) *testSwarm {
	t.Helper()
	return startAt(t, info, name, data, "127.0.0.1:0")
}

func startAt(t testing.TB, info *metainfo.Info, name string, data []byte, listen string) *testSwarm {
	t.Helper()
	log := &journal.Journal{}
	st := &memStore{pieces: make(map[int][]byte)}
	s := launch(t, Config{Info: info, Store: st, Key: identitytest.Key(t, name), Listen: netip.MustParseAddrPort(listen),
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)}, st, data)
	t.Cleanup(func() {
		if t.Failed() {
			l := log.String()
			t.Logf("log of %s:\n%s", name, l[max(0, len(l)-4000):])
		}
	})
	return &testSwarm{s, st, log}
}

// launch runs a swarm, which holds the data if there is any, and else wants it all.
func launch(t testing.TB, cfg Config, st *memStore, data []byte) *Swarm {
	t.Helper()
	cfg.Budget = cfg.Info.Size
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if data == nil {
		wantAll(s)
	}
	for i := 0; len(data) > 0; i++ {
		n := min(testPiece, len(data))
		if err := st.Put(i, [][]byte{data[:n]}); err != nil {
			t.Fatal(err)
		}
		data = data[n:]
		s.Changed(i)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(2 * time.Minute):
			t.Error("the swarm does not stop")
		}
	})
	return s
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// fake is a peer whose behaviour a test writes itself.
type fake struct {
	info *metainfo.Info
	data []byte
	hs   wire.Handshake
	// key makes it one of our nodes, which proves it.
	key identity.Key
	// serve answers a request; nil answers rightly.
	serve func(f *fake, c net.Conn, b wire.Block) error
	// challenge answers a challenge; nil does not.
	challenge func(f *fake, c net.Conn, payload []byte)
	// greet replaces what is said after the handshake.
	greet func(c net.Conn)

	mu       sync.Mutex
	requests []wire.Block
	got      []wire.Message
}

func newFake(info *metainfo.Info, data []byte, id string) *fake {
	f := &fake{info: info, data: data, hs: wire.Handshake{Infohash: info.Infohash, Fast: true, Extended: true}}
	copy(f.hs.PeerID[:], "-XX0000-"+id+"            ")
	return f
}

// ours makes the fake one of our nodes.
func (f *fake) ours(t testing.TB) *fake {
	f.key = identitytest.Key(t, string(f.hs.PeerID[:]))
	f.hs.PeerID = wire.PeerIDOf(f.key.Public())
	return f
}

// listen lets others dial the fake.
func (f *fake) listen(t testing.TB) netip.AddrPort {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			conns = append(conns, c)
			f.mu.Unlock()
			wg.Go(func() { f.talk(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		f.mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		f.mu.Unlock()
		wg.Wait()
	})
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// talk holds one conversation.
func (f *fake) talk(c net.Conn) {
	defer c.Close()
	c.Write(f.hs.Append(nil))
	if _, err := io.ReadFull(c, make([]byte, wire.HandshakeSize)); err != nil {
		return
	}
	if f.greet != nil {
		f.greet(c)
	} else {
		f.hello(c)
	}
	r := wire.NewReader(c, wire.Limits{Pieces: f.info.NumPieces(), Block: testPiece})
	for {
		m, err := r.Next()
		if err != nil {
			return
		}
		f.mu.Lock()
		m.Payload = bytes.Clone(m.Payload)
		f.got = append(f.got, m)
		f.mu.Unlock()
		if m.Type == wire.Extended && m.ExtendedID == wire.IDHandshake && !m.KeepAlive {
			f.prove(c, m.Payload)
		}
		if m.Type == wire.Extended && m.ExtendedID == wire.IDChallenge && !m.KeepAlive && f.challenge != nil {
			f.challenge(f, c, m.Payload)
		}
		if m.Type != wire.Request || m.KeepAlive {
			continue
		}
		f.mu.Lock()
		f.requests = append(f.requests, m.Block)
		f.mu.Unlock()
		serve := f.serve
		if serve == nil {
			serve = (*fake).right
		}
		if serve(f, c, m.Block) != nil {
			return
		}
	}
}

func (f *fake) hello(c net.Conn) {
	var b []byte
	if f.hs.Fast {
		b = wire.Message{Type: wire.HaveAll}.Append(b)
	} else {
		b = wire.Message{Type: wire.Bitfield, Payload: wire.Bits(f.info.NumPieces(), func(int) bool { return true })}.Append(b)
	}
	if f.hs.Extended {
		var h wire.Hello
		h.Client = "fake"
		if !f.key.IsZero() {
			h.Block, h.Budget = testPiece, f.info.Size
			h.M.Urgent, h.M.DontHave, h.M.Proof = wire.IDUrgent, wire.IDDontHave, wire.IDProof
			h.M.Challenge, h.M.Answer = wire.IDChallenge, wire.IDAnswer
			key := f.key.Public()
			h.Key, h.Nonce = key[:], make([]byte, wire.NonceSize)
		}
		b = wire.Extension(wire.IDHandshake, h.Payload()).Append(b)
	}
	c.Write(wire.Message{Type: wire.Unchoke}.Append(b))
}

// prove answers a node's hello with a proof of the fake's key, if it has one.
func (f *fake) prove(c net.Conn, hello []byte) {
	h, err := wire.ParseHello(hello)
	if err != nil || !h.CanProve() || f.key.IsZero() {
		return
	}
	s := wire.Statement{Infohash: f.info.Infohash, Signer: f.key.Public(), Verifier: identity.Public(h.Key), Nonce: h.Nonce,
		From: wire.AddressOf(c.LocalAddr()), To: wire.AddressOf(c.RemoteAddr())}
	c.Write(wire.Extension(h.M.Proof, s.Sign(f.key)).Append(nil))
}

func (f *fake) right(c net.Conn, b wire.Block) error {
	off := int(f.info.PieceOffset(b.Piece)) + b.Begin
	_, err := c.Write(append(wire.Message{Type: wire.Piece, Block: b}.Append(nil), f.data[off:off+b.Length]...))
	return err
}

func (f *fake) asked() []wire.Block {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]wire.Block(nil), f.requests...)
}

func (f *fake) heard() []wire.Message {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]wire.Message(nil), f.got...)
}
