package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"viver.lan/internal/control"
	"viver.lan/internal/swarm/wire"
)

// villain is a peer on a node of its own that knows how to greet and then does
// its worst.
type villain struct {
	room *room
	id   string
	ours bool // says that it is one of our nodes
	// act answers a request; an error ends the connection.
	act func(v *villain, c net.Conn, b wire.Block) error
	// asked counts the requests that came.
	asked atomic.Int64
}

// at lets the villain listen on node i.
func (v *villain) at(i int) {
	t := v.room.t
	t.Helper()
	node := v.room.bed.Node(i)
	l, err := node.Listen(t.Context(), "tcp", node.AddrPort(control.SwarmPort).String())
	if err != nil {
		t.Fatal(err)
	}
	var talks sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	talks.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			talks.Go(func() {
				stop := context.AfterFunc(ctx, func() { c.Close() })
				defer stop()
				defer c.Close()
				v.talk(c)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		talks.Wait()
	})
}

// talk greets and answers requests.
func (v *villain) talk(c net.Conn) {
	if v.greet(c) != nil {
		return
	}
	r := wire.NewReader(c, wire.Limits{Pieces: v.room.info.NumPieces(), Block: int(v.room.info.PieceLength)})
	for {
		m, err := r.Next()
		if err != nil {
			return
		}
		if m.Type != wire.Request || m.KeepAlive {
			continue
		}
		v.asked.Add(1)
		if v.act(v, c, m.Block) != nil {
			return
		}
	}
}

func (v *villain) greet(c net.Conn) error {
	hs := wire.Handshake{Infohash: v.room.info.Infohash, Fast: true, Extended: true}
	copy(hs.PeerID[:], "-XX0000-"+v.id+strings.Repeat(" ", 20))
	b := wire.Message{Type: wire.HaveAll}.Append(hs.Append(nil))
	var h wire.Hello
	h.Client = v.id
	if v.ours {
		h.Block, h.Budget = v.room.info.PieceLength, v.room.info.Size
	}
	if _, err := c.Write(wire.Message{Type: wire.Unchoke}.Append(wire.Extension(wire.IDHandshake, h.Payload()).Append(b))); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, wire.HandshakeSize))
	return err
}

// block is the right answer to a request.
func (v *villain) block(b wire.Block) []byte {
	off := v.room.info.PieceOffset(b.Piece) + int64(b.Begin)
	return append(wire.Message{Type: wire.Piece, Block: b}.Append(nil), v.room.data[off:off+int64(b.Length)]...)
}

var errEnough = errors.New("that is all")

func wrongBytes(v *villain, c net.Conn, b wire.Block) error {
	out := v.block(b)
	out[len(out)/2] ^= 4
	_, err := c.Write(out)
	return err
}

func halfThenSilence(v *villain, c net.Conn, b wire.Block) error {
	out := v.block(b)
	_, _ = c.Write(out[:len(out)/2])
	_, _ = io.Copy(io.Discard, c) // until somebody else ends it
	return errEnough
}

func halfThenGone(v *villain, c net.Conn, b wire.Block) error {
	out := v.block(b)
	_, _ = c.Write(out[:len(out)/2])
	return errEnough
}

// garbage sends a right block, then noise.
func garbage(v *villain, c net.Conn, b wire.Block) error {
	noise := make([]byte, 64<<10)
	rand.NewChaCha8([32]byte{byte(b.Piece)}).Read(noise)
	_, _ = c.Write(append(v.block(b), noise...))
	return nil
}

// refuses rejects whatever it is asked for, though it says that it has it.
func refuses(_ *villain, c net.Conn, b wire.Block) error {
	_, err := c.Write(wire.Message{Type: wire.Reject, Block: b}.Append(nil))
	return err
}

// silent answers nothing, though it says that it has everything.
func silent(*villain, net.Conn, wire.Block) error { return nil }

// hold opens connections to m from node i, which say nothing.
func (r *room) hold(i, connections int, m *machine) {
	for range connections {
		c, err := r.bed.Node(i).Dial(r.t.Context(), "tcp", m.swarm().String())
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { c.Close() })
	}
}

// One honest first node among peers that lie, stop in the middle, talk noise
// refuse or say nothing, and to which one of them holds more connections than it
// has places: the node gets everything, right, names those who lied, blames
// nobody else, and soon asks those who give nothing no more.
func TestNetnsBadPeers(t *testing.T) {
	t.Parallel()
	r := newRoom(t, 9, 60, 256)
	if r == nil {
		return
	}
	villains := []*villain{
		{id: "liar", ours: true, act: wrongBytes}, {id: "strange-liar", act: wrongBytes},
		{id: "half", ours: true, act: halfThenSilence}, {id: "half-gone", ours: true, act: halfThenGone},
		{id: "noise", ours: true, act: garbage}, {id: "refuses", ours: true, act: refuses}, {id: "silent", act: silent},
	}
	var peers []int
	for k, v := range villains {
		v.room = r
		v.at(k + 2)
		peers = append(peers, k+2)
	}
	r.hold(2, 220, r.origin(0))
	n := r.start(1, r.know(0, peers...)...)
	read := n.read(0)
	read.finish()
	r.complete(n)
	t.Logf("the slowest read took %v", read.slow.Round(time.Millisecond))
	for k, named := range []bool{true, true, false, false, false, false, false} {
		said := regexp.MustCompile(`msg="wrong bytes( came from)?" .*peer=` + regexp.QuoteMeta(r.bed.Node(k+2).AddrPort(control.SwarmPort).String()) + `\b`)
		if said.MatchString(n.log.String()) != named {
			t.Errorf("%s: named as a liar %v, want %v", villains[k].id, !named, named)
		}
	}
	if regexp.MustCompile(`msg="wrong bytes.*peer=` + r.bed.Node(0).Addr().String() + `:`).MatchString(n.log.String()) {
		t.Error("the honest one was blamed")
	}
	for _, v := range villains[5:] {
		if asked := v.asked.Load(); asked > 400 {
			t.Errorf("%s: asked %d times for a block", v.id, asked)
		} else {
			t.Logf("%s: asked %d times for a block", v.id, v.asked.Load())
		}
	}
}

// flood dials a machine and sends it requests, so many a second, for as long
// as it lives. It reads what comes, or nothing at all.
func (r *room) flood(from int, to *machine, perSecond int, reads bool, sent *atomic.Int64) {
	t := r.t
	t.Helper()
	c, err := r.bed.Node(from).Dial(t.Context(), "tcp", to.swarm().String())
	if err != nil {
		t.Fatal(err)
	}
	v := &villain{room: r, id: "flood-" + strconv.Itoa(from)}
	if err := v.greet(c); err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	both.Go(func() {
		for reads {
			if n, err := io.Copy(io.Discard, c); err != nil || n == 0 {
				return
			}
		}
	})
	both.Go(func() {
		const batches = 50 // a second
		tick := time.NewTicker(time.Second / batches)
		defer tick.Stop()
		rng := rand.New(rand.NewPCG(uint64(from), 1))
		for range tick.C {
			var b []byte
			for range perSecond / batches {
				piece := rng.IntN(r.info.NumPieces() - 1)
				b = wire.Message{Type: wire.Request, Block: wire.Block{Piece: piece, Begin: 16 << 10 * rng.IntN(4), Length: 16 << 10}}.Append(b)
			}
			if _, err := c.Write(b); err != nil {
				return
			}
			sent.Add(int64(perSecond / batches))
		}
	})
	t.Cleanup(func() {
		c.Close()
		both.Wait()
	})
}

// memory is what the process itself uses, without its pieces, in bytes.
func (m *machine) memory() int64 {
	m.room.t.Helper()
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(m.cmd.Process.Pid), "status"))
	if err != nil {
		m.room.t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(data, []byte("RssAnon:"))
	kib, err := strconv.ParseInt(string(bytes.Fields(rest)[0]), 10, 64)
	if err != nil {
		m.room.t.Fatal(err)
	}
	return kib << 10
}

// Two peers send 10,000 requests a second each, and one of them never reads
// an answer. A third gets the whole image meanwhile, and the first node's
// memory stays bounded.
func TestNetnsRequestFlood(t *testing.T) {
	t.Parallel()
	r := newRoom(t, 4, 60, 128)
	if r == nil {
		return
	}
	o := r.origin(0)
	var reading, idle atomic.Int64
	r.flood(2, o, 10_000, true, &reading)
	r.flood(3, o, 10_000, false, &idle)
	until(t, "the flood is on", func() bool { return reading.Load() > 10_000 })
	begin, before := time.Now(), reading.Load()
	n := r.start(1, r.know(0)...)
	n.read(0).finish()
	r.complete(n)
	took := time.Since(begin)
	t.Logf("read in %v beside %d requests (%.0f a second); %d more went to one who reads nothing; %d MB of memory",
		took.Round(time.Millisecond), reading.Load()-before, float64(reading.Load()-before)/took.Seconds(), idle.Load(), o.memory()>>20)
	if got := o.memory(); got > 150<<20 {
		t.Errorf("the first node uses %d MB", got>>20)
	}
}

// endianness of NBD requests is checked by the strangers of package nbd; here
// only that nonsense on that port, too, hurts nobody.
func TestNetnsGarbageForNBD(t *testing.T) {
	t.Parallel()
	r := newRoom(t, 1, 0, 16)
	if r == nil {
		return
	}
	o := r.origin(0)
	for seed := range byte(50) {
		c, err := o.node.Dial(t.Context(), "tcp", o.node.AddrPort(nbdPort).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		noise := make([]byte, 1000)
		rand.NewChaCha8([32]byte{seed}).Read(noise)
		if seed%2 == 0 { // as far as the transmission phase
			client := &nbdClient{conn: c, data: r.data}
			if err := client.handshake(); err != nil {
				t.Fatal(err)
			}
		}
		if seed%4 == 0 { // with a right beginning
			binary.BigEndian.PutUint32(noise, 0x25609513)
		}
		_, _ = c.Write(noise)
	}
	o.read(0).finish()
}
