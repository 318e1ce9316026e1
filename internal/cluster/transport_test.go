package cluster

import (
	"bytes"
	"compress/lzw"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/sleep"
)

func compound(parts ...[]byte) []byte {
	p := append([]byte(labelHeader), msgCompound, byte(len(parts)))
	for _, part := range parts {
		p = binary.BigEndian.AppendUint16(p, uint16(len(part)))
	}
	return append(p, bytes.Join(parts, nil)...)
}

// bomb is a packet that unfolds to many megabytes.
func bomb(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := lzw.NewWriter(&b, lzw.LSB, 8)
	if _, err := w.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	const msgCompress = 9
	p := forge(label, msgCompress, field{"Algo", uint32(0)}, field{"Buf", ""})
	p = append(p[:len(p)-2], 0xc5) // bin 16
	return append(binary.BigEndian.AppendUint16(p, uint16(b.Len())), b.Bytes()...)
}

func TestInspect(t *testing.T) {
	ping := forge(label, msgPing, field{"SeqNo", uint32(1)}, field{"Node", "x"})
	indirect := forge(label, msgIndirectPing, field{"SeqNo", uint32(1)})[len(labelHeader):]
	for _, test := range []struct {
		name     string
		packet   []byte
		messages int
		ok       bool
	}{
		{"ping", ping, 1, true},
		{"with checksum", append([]byte(labelHeader+"\x0c...."), ping[len(labelHeader):]...), 1, true},
		{"compound", compound(indirect, ping[len(labelHeader):], indirect), 3, true},
		{"indirect ping", append([]byte(labelHeader), indirect...), 1, true},
		{"nothing", nil, 0, false},
		{"label only", []byte(labelHeader), 0, false},
		{"another label", forge("viver/2", msgPing), 0, false},
		{"no label", forge("", msgPing), 0, false},
		{"compound in a compound", compound(compound(indirect)[len(labelHeader):]), 0, false},
		{"compound cut off", compound(indirect)[:len(labelHeader)+10], 0, false},
		{"lengths cut off", compound(indirect, indirect)[:len(labelHeader)+4], 0, false},
		{"empty part", compound(nil), 0, false},
		{"compressed", bomb(t), 0, false},
		{"encrypted", forge(label, 10), 0, false},
		{"state in a packet", forge(label, msgPushPull), 0, false},
		{"of fragments", append(ping, make([]byte, maxPacket)...), 0, false},
	} {
		messages, err := unpack(test.packet)
		if (err == nil) != test.ok || err == nil && len(messages) != test.messages {
			t.Errorf("%s: %d messages, %v", test.name, len(messages), err)
		}
	}
}

func TestPacketRates(t *testing.T) {
	f := newPacketFilter(nil, nil)
	now := time.Now()
	flood := func(packet []byte, from ...string) (passed int) {
		for i := range 10 * maxPackets {
			if f.check(packet, netip.AddrPortFrom(netip.MustParseAddr(from[i%len(from)]), 7946), now) == nil {
				passed++
			}
		}
		return passed
	}
	ping := forge(label, msgPing)
	if n := flood(ping, "10.0.0.1"); n != maxPackets {
		t.Errorf("%d of a flood pass, want %d", n, maxPackets)
	}
	if n := flood(ping, "10.0.0.2"); n != maxPackets {
		t.Errorf("%d of another's flood pass: one takes what is another's", n)
	}
	now = now.Add(time.Second)
	if n := flood(forge(label, msgIndirectPing), "10.0.0.1", "10.0.0.2", "10.0.0.3"); n != maxIndirectPings {
		t.Errorf("%d indirect pings pass, want %d of all together", n, maxIndirectPings)
	}
	if f.check(ping, netip.AddrPort{}, now) == nil {
		t.Error("a packet of outside passes")
	}
}

// With too many connections somebody's goes: one that is held, and among many
// young ones the newest.
func TestTooManyConnections(t *testing.T) {
	begin := time.Now()
	for _, test := range []struct {
		name   string
		from   func(i int) byte // the last byte of connection i's address
		age    time.Duration    // of the first, when the last comes
		open   int
		closed int // place of the one that goes, -1: none
	}{
		{"as many as may be", func(i int) byte { return byte(i) }, 0, maxStreams, -1},
		{"all are young", func(i int) byte { return byte(i) }, streamTime / 2, maxStreams + 1, maxStreams},
		{"the first is held", func(i int) byte { return byte(i) }, 2 * streamTime, maxStreams + 1, 0},
		{"too many of one", func(int) byte { return 7 }, 0, maxStreamsEach + 1, 0},
	} {
		tr := &transport{}
		var all []*stream
		for i := range test.open {
			conn, far := net.Pipe()
			defer far.Close()
			s := newStream(conn, labelHeader, netip.AddrFrom4([4]byte{10, 0, 0, test.from(i)}), nil, slog.New(slog.DiscardHandler), tr.remove)
			s.opened = begin
			if i == test.open-1 {
				s.opened = begin.Add(test.age)
			}
			all = append(all, s)
			tr.add(s)
		}
		for i, s := range all {
			if open := slices.Contains(tr.open, s); open == (i == test.closed) {
				t.Errorf("%s: connection %d of %d is open: %v", test.name, i+1, test.open, open)
			}
		}
	}
}

func FuzzInspect(f *testing.F) {
	f.Add(forge(label, msgPing, field{"SeqNo", uint32(1)}))
	f.Add(compound([]byte{msgSuspect, 0x80}, []byte{msgIndirectPing, 0x80}))
	f.Add(forgedDeath(label, 1, identitytest.Named("a"), "b"))
	f.Add(bomb(f))
	f.Fuzz(func(t *testing.T, p []byte) {
		if messages, err := unpack(p); err == nil && (len(messages) > 255 || len(p) > maxPacket) {
			t.Errorf("%d messages in %d bytes pass", len(messages), len(p))
		}
		_ = inspectHeader(p)
		from := netip.MustParseAddrPort("10.0.0.1:7946")
		budget := &signatureBudget{needed: func(string, []byte) bool { return true }}
		var pending pendingPings
		pending.sent(p, from.String(), time.Now())
		_ = newPacketFilter(budget, &pending).check(p, from, time.Now())
		s := newStream(readConn{Reader: bytes.NewReader(p)}, labelHeader, from.Addr(), budget, slog.New(slog.DiscardHandler), func(*stream) {})
		_ = s.inspectStart()
	})
}

// readConn is a connection of which only the bytes matter.
type readConn struct {
	net.Conn
	io.Reader
}

func (c readConn) Read(p []byte) (int, error) { return c.Reader.Read(p) }

// state is the beginning of an exchange of states that claims to be so large.
func state(nodes, words uint32) []byte {
	return forge(label, msgPushPull, field{"Nodes", nodes}, field{"UserStateLen", words})
}

func TestInspectHeader(t *testing.T) {
	for _, test := range []struct {
		nodes, words uint32
		ok           bool
	}{{0, 0, true}, {maxMembers, maxOverrideBytes, true}, {maxMembers + 1, 0, false}, {1, maxOverrideBytes + 1, false}, {1 << 31, 0, false}} {
		if err := inspectHeader(state(test.nodes, test.words)[len(labelHeader)+1:]); (err == nil) != test.ok {
			t.Errorf("%d members, %d bytes: %v", test.nodes, test.words, err)
		}
	}
	if inspectHeader(nil) == nil || inspectHeader([]byte("\x83\xd9")) == nil {
		t.Error("half a header is accepted")
	}
}

// record pretends to be a member and returns what a real one sends it: packets,
// and the beginning of a connection.
func record(t *testing.T, from *Cluster, at netip.AddrPort) (packets [][]byte, connection []byte) {
	t.Helper()
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	throw(t, from, introduce(identitytest.Key(t, "recorder"), at, Meta{}, 1, 1, 5, 2))
	var g errgroup.Group
	g.Go(func() error {
		buf := make([]byte, 65536)
		for len(packets) < 5 {
			n, err := udp.Read(buf)
			if err != nil {
				return err
			}
			packets = append(packets, bytes.Clone(buf[:n]))
		}
		return nil
	})
	g.Go(func() error { // a ping that was not answered is repeated by TCP
		conn, err := tcp.Accept()
		if err != nil {
			return err
		}
		defer conn.Close()
		connection = make([]byte, 4096)
		n, err := conn.Read(connection)
		connection = connection[:n]
		return err
	})
	stop := time.AfterFunc(30*time.Second, func() { udp.Close(); tcp.Close() })
	defer stop.Stop()
	if err := g.Wait(); err != nil {
		t.Fatal("no traffic to record: ", err)
	}
	return packets, connection
}

// Whatever arrives on the gossip port, as packets or on connections, of many
// addresses: the members stay, and hear each other, and it costs little. Not in
// parallel, because what it costs is asked of the whole process.
func TestGarbageOnTheGossipPort(t *testing.T) {
	members, _ := room(t, 130, 2)
	a, b := members[0], members[1]
	model, stopModel := room(t, 131, 1)
	packets, connection := record(t, model[0], netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 131, 99}), model[0].Addr().Port()))
	stopModel[0]()
	for _, p := range packets {
		if _, err := unpack(p); err != nil {
			t.Errorf("a member's own packet is refused: %v: %q", err, p)
		}
	}
	packets = append(packets, bomb(t), compound(slices.Repeat([][]byte{forge(label, msgIndirectPing, field{"Nack", uint32(1)})[len(labelHeader):]}, 20)...),
		make([]byte, 65507))
	// Claims that memberlist would believe.
	huge := state(1<<20-1, 0)
	name := append(state(1, 0), forge("", msgPing, field{"Name", ""})[3:]...) // a name of 2 GiB
	name = binary.BigEndian.AppendUint32(append(name[:len(name)-2], 0xdb), 1<<31)
	openings := [][]byte{connection, huge, state(1, 20<<20), name, make([]byte, 4096)}

	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	cost := watchCost(ctx)
	var wg sync.WaitGroup
	const strangers = 16
	for i := range strangers {
		from := netip.AddrFrom4([4]byte{127, 0, 130, byte(100 + i)})
		wg.Go(func() { throwGarbage(ctx, a, from, packets) })
		wg.Go(func() { holdConnections(ctx, a, from, openings) })
	}
	wg.Go(func() { aliveAllAlong(t, a, b.self(), ctx) })
	wg.Go(func() { aliveAllAlong(t, b, a.self(), ctx) })
	for i := range 3 {
		meta := Meta{Hostname: "word-" + string(rune('a'+i)), Infohash: image(), Network: network}
		if err := b.UpdateMeta(t.Context(), func(m *Meta) { *m = meta }); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		waitFor(t, a, "an update amid the garbage", func(m map[identity.ID]Member) bool { return reflect.DeepEqual(m[b.id()].Meta, meta) })
		t.Logf("update %d heard after %.1f s", i, time.Since(begin).Seconds())
		_ = sleep.For(ctx, time.Second)
	}
	wg.Wait()
	goroutines, heap := cost()
	t.Logf("at most %d more goroutines, %d MB more memory", goroutines, heap>>20)
	// A connection has one goroutine on each side, an indirect ping one for 0.5 s.
	if limit := strangers*(2+perStranger) + 2*maxStreams + maxIndirectPings; goroutines > limit {
		t.Errorf("%d goroutines more than before, want at most %d", goroutines, limit)
	}
	if heap > 128<<20 {
		t.Errorf("%d MB of memory more than before", heap>>20)
	}
	// One that speaks another protocol would keep out who comes now.
	stranger := func(name string, host byte, protocol ...byte) []byte {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 130, host}), 7946)
		return introduce(identitytest.Key(t, name), at, Meta{}, 1, protocol...)
	}
	waitFor(t, a, "the witness is heard", func(m map[identity.ID]Member) bool {
		throw(t, a, stranger("foreign", 98, 5, 5, 5), stranger("witness", 97, 1, 5, 2)) // the port may still be full
		time.Sleep(100 * time.Millisecond)
		return m[identitytest.ID("witness")].State == Alive
	})
	cfg := config(t, 3, a.Addr())
	cfg.Bind = netip.MustParseAddr("127.0.130.3")
	newcomer, _ := start(t, cfg)
	waitFor(t, newcomer, "a newcomer is in", alive(a.id(), b.id()))
	for _, m := range append(a.Members(), newcomer.Members()...) {
		if m.ID == identitytest.ID("foreign") {
			t.Errorf("a member of another protocol: %+v", m)
		}
	}
}

// self is what the others should see.
func (c *Cluster) self() Member {
	for _, m := range c.Members() {
		if m.Self {
			return m
		}
	}
	return Member{}
}

// throwGarbage sends packets truncated to every length, changed and made up.
func throwGarbage(ctx context.Context, at *Cluster, from netip.Addr, packets [][]byte) {
	udp, err := (&net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}).DialContext(ctx, "udp", at.Addr().String())
	if err != nil {
		return
	}
	defer udp.Close()
	random := rand.New(rand.NewPCG(1, uint64(from.As4()[3])))
	for n := 0; ctx.Err() == nil; n++ {
		p := bytes.Clone(packets[random.IntN(len(packets))])
		if n%2 == 0 {
			p = p[:n/2%(len(p)+1)]
		}
		if len(p) > len(labelHeader) && n%3 == 0 {
			p[len(labelHeader)+random.IntN(len(p)-len(labelHeader))] ^= 1 << random.IntN(8)
		}
		_, _ = udp.Write(p)
		_ = sleep.For(ctx, time.Millisecond) // more than the machine can read drowns all
	}
}

// perStranger is how many connections one address keeps open, a goroutine each.
const perStranger = 6

// holdConnections opens connections, says a part of something and waits.
func holdConnections(ctx context.Context, at *Cluster, from netip.Addr, openings [][]byte) {
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	var wg sync.WaitGroup
	for i := range perStranger {
		wg.Go(func() {
			for n := i; ctx.Err() == nil; n += perStranger {
				conn, err := dialer.DialContext(ctx, "tcp", at.Addr().String())
				if err != nil {
					_ = sleep.For(ctx, 50*time.Millisecond)
					continue
				}
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				p := openings[n%len(openings)]
				if n%2 == 0 {
					p = p[:n%(len(p)+1)]
				}
				_, _ = conn.Write(p)
				_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
				_, _ = conn.Read(make([]byte, 1)) // until it is thrown out
				stop()
				_ = conn.Close()
			}
		})
	}
	wg.Wait()
}

// watchCost samples what the process takes until ctx ends; the returned function
// tells the most beyond the beginning.
func watchCost(ctx context.Context) func() (goroutines int, heap uint64) {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	heap, goroutines := stats.HeapSys-stats.HeapReleased, runtime.NumGoroutine()
	mostHeap, mostGoroutines := heap, goroutines
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sleep.For(ctx, 20*time.Millisecond) == nil {
			runtime.ReadMemStats(&stats)
			mostHeap = max(mostHeap, stats.HeapSys-stats.HeapReleased)
			mostGoroutines = max(mostGoroutines, runtime.NumGoroutine())
		}
	}()
	return func() (int, uint64) {
		<-done
		return mostGoroutines - goroutines, mostHeap - heap
	}
}
