package lan

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

var (
	macA      = []byte{0x52, 0x54, 0, 0, 0, 0xa}
	macB      = []byte{0x52, 0x54, 0, 0, 0, 0xb}
	macC      = []byte{0x52, 0x54, 0, 0, 0, 0xc}
	broadcast = []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

// frame has an EtherType for local experiments (IEEE 802).
func frame(dst, src []byte, payload string) []byte {
	return bytes.Join([][]byte{dst, src, {0x88, 0xb5}, []byte(payload)}, nil)
}

func attach(t *testing.T, s *Switch, names ...string) []*Endpoint {
	t.Helper()
	var all []*Endpoint
	for _, name := range names {
		e, err := s.Attach(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func send(t *testing.T, e *Endpoint, f []byte) {
	t.Helper()
	if err := e.Send(f); err != nil {
		t.Fatal(err)
	}
}

// expect receives frames until the wanted one and fails if another one comes
// first.
func expect(t *testing.T, e *Endpoint, want []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := e.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s received %q, want %q", e.Port.Name, got, want)
	}
}

func TestSwitchLearnsWhoIsWhere(t *testing.T) {
	s := New(nil)
	defer s.Close()
	e := attach(t, s, "a", "b", "c")
	a, b, c := e[0], e[1], e[2]

	// Unknown destination: everybody but the sender.
	hello := frame(macB, macA, "flooded")
	send(t, a, hello)
	expect(t, b, hello)
	expect(t, c, hello)
	// The answer goes to its destination only: the next frame that c sees is
	// the broadcast after it.
	answer, all := frame(macA, macB, "answer"), frame(broadcast, macB, "all")
	send(t, b, answer)
	send(t, b, all)
	expect(t, a, answer)
	expect(t, a, all)
	expect(t, c, all)
	// A machine that moves to another port is found there.
	send(t, c, frame(broadcast, macA, "moved"))
	expect(t, a, frame(broadcast, macA, "moved"))
	expect(t, b, frame(broadcast, macA, "moved"))
	send(t, b, answer)
	expect(t, c, answer)
	// A port that was unplugged is forgotten, so its frames flood again.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	send(t, b, answer)
	expect(t, a, answer)
}

func TestCutPortIsSilentBothWays(t *testing.T) {
	s := New(nil)
	defer s.Close()
	e := attach(t, s, "a", "b", "c")
	a, b, c := e[0], e[1], e[2]
	b.Port.Cut(true)
	send(t, a, frame(broadcast, macA, "1"))
	expect(t, c, frame(broadcast, macA, "1"))
	send(t, b, frame(broadcast, macB, "2"))
	send(t, a, frame(broadcast, macA, "3"))
	expect(t, c, frame(broadcast, macA, "3"))
	b.Port.Cut(false)
	send(t, a, frame(broadcast, macA, "4"))
	expect(t, b, frame(broadcast, macA, "4"))
}

// A port that nobody reads must not delay the others, and what it misses is
// counted.
func TestDeadPortDelaysNobody(t *testing.T) {
	s := New(nil)
	defer s.Close()
	e := attach(t, s, "a", "b", "dead")
	a, b, dead := e[0], e[1], e[2]
	const frames = 3 * queueSize / 1514
	payload := strings.Repeat("x", 1500)
	for range frames {
		f := frame(broadcast, macA, payload)
		send(t, a, f)
		expect(t, b, f)
	}
	st := dead.Port.Stats()
	if st.Dropped == 0 || st.ReceivedFrames+st.Dropped != frames {
		t.Errorf("the dead port took %d frames and dropped %d of %d", st.ReceivedFrames, st.Dropped, frames)
	}
	if got := a.Port.Stats(); got.SentFrames != frames || got.SentBytes != frames*1514 {
		t.Errorf("stats of the sender: %+v", got)
	}
}

func TestStreamOfNonsenseEndsThePort(t *testing.T) {
	s := New(nil)
	defer s.Close()
	ours, theirs := net.Pipe()
	if _, err := s.Plug("mad", theirs, PortOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Write(bytes.Repeat([]byte{0xff}, 8)); err != nil {
		t.Fatal(err)
	}
	if err := ours.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after a length of 4 GiB the port answers %v, want EOF", err)
	}
}

func TestClosedSwitch(t *testing.T) {
	s := New(nil)
	e := attach(t, s, "a")[0]
	s.Close()
	if _, err := e.Receive(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("receive on a closed switch: %v", err)
	}
	if err := e.Send(frame(broadcast, macA, "")); !errors.Is(err, ErrClosed) {
		t.Errorf("send to a closed switch: %v", err)
	}
	if _, err := s.Attach("late"); !errors.Is(err, ErrClosed) {
		t.Errorf("attach to a closed switch: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Receive(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("receive with a context that is over: %v", err)
	}
}

// The reader finds the same frames however the stream is cut.
func TestReaderReassembles(t *testing.T) {
	var stream []byte
	var want [][]byte
	for _, n := range []int{14, 1514, 60, MaxFrame, 0, 9014, 15} {
		f := bytes.Repeat([]byte{byte(n)}, n)
		want = append(want, f)
		stream = append(binary.BigEndian.AppendUint32(stream, uint32(n)), f...)
	}
	for name, from := range map[string]io.Reader{
		"whole":     bytes.NewReader(stream),
		"byte-wise": iotest.OneByteReader(bytes.NewReader(stream)),
		"halves":    iotest.HalfReader(bytes.NewReader(stream)),
	} {
		r := newReader(from)
		for i, w := range want {
			got, err := r.next()
			if err != nil || !bytes.Equal(got[headerSize:], w) {
				t.Fatalf("%s: frame %d has %d bytes (%v), want %d", name, i, len(got), err, len(w))
			}
		}
		if _, err := r.next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: after the last frame: %v", name, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 1, 2, 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 1, 16, 1})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := newReader(iotest.HalfReader(bytes.NewReader(stream)))
		rest := stream
		for {
			got, err := r.next()
			if err != nil {
				return
			}
			if len(got) > len(rest) || !bytes.Equal(got, rest[:len(got)]) {
				t.Fatalf("the reader made up %x", got)
			}
			rest = rest[len(got):]
		}
	})
}

// The rate limit is checked without a clock: the limiter's arithmetic is the
// library's, that both directions ask it is ours. At a byte per second nothing
// comes back to it meanwhile.
func TestRateIsAskedInBothDirections(t *testing.T) {
	s := New(nil)
	defer s.Close()
	ours, theirs := net.Pipe()
	defer ours.Close()
	slow, err := s.Plug("slow", theirs, PortOptions{BitsPerSecond: 8})
	if err != nil {
		t.Fatal(err)
	}
	other := attach(t, s, "other")[0]
	before := slow.in.Tokens()
	f := frame(broadcast, macA, strings.Repeat("x", 50_000))
	if _, err := ours.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(f))), f...)); err != nil {
		t.Fatal(err)
	}
	expect(t, other, f)
	if left := slow.in.Tokens(); left > before-10_000 {
		t.Errorf("a frame of %d bytes from the machine left %.0f of %.0f tokens", len(f), left, before)
	}
	send(t, other, f)
	if _, err := io.ReadFull(ours, make([]byte, headerSize+len(f))); err != nil {
		t.Fatal(err)
	}
	if left := slow.out.Tokens(); left > before-10_000 {
		t.Errorf("a frame of %d bytes to the machine left %.0f of %.0f tokens", len(f), left, before)
	}
}

// tcpdump is the judge of the capture file.
func TestCaptureIsReadByTcpdump(t *testing.T) {
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Skip("tcpdump is not installed")
	}
	path := filepath.Join(t.TempDir(), "boot.pcap")
	capture, err := NewCapture(path)
	if err != nil {
		t.Fatal(err)
	}
	s := New(capture)
	e := attach(t, s, "a", "b")
	for _, payload := range []string{"short", strings.Repeat("x", snapFrom-minFrame), strings.Repeat("y", 1500)} {
		f := frame(macC, macA, payload)
		send(t, e[0], f)
		expect(t, e[1], f)
	}
	if err := capture.Flush(); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tcpdump", "-n", "-e", "-xx", "-r", path).Output()
	if err != nil {
		t.Fatalf("tcpdump: %v\n%s", err, out)
	}
	for _, want := range []string{
		"52:54:00:00:00:0a > 52:54:00:00:00:0c, ethertype Unknown (0x88b5), length 19:",
		"length 1024:", "length 1514:", "88b5 7368", // the EtherType and "sh"
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("tcpdump does not show %q", want)
		}
	}
	if n := strings.Count(string(out), "0x03f0:"); n != 1 {
		t.Errorf("%d frames kept 1 KiB, want the one that long; a bulk frame is cut", n)
	}
	s.Close()
	if err := capture.Close(); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkSwitch(b *testing.B) {
	s := New(nil)
	defer s.Close()
	theirsA, a, err := Pair("a")
	if err != nil {
		b.Fatal(err)
	}
	theirsB, bb, err := Pair("b")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.Plug("a", a, PortOptions{}); err != nil {
		b.Fatal(err)
	}
	if _, err := s.Plug("b", bb, PortOptions{}); err != nil {
		b.Fatal(err)
	}
	f := frame(macB, macA, strings.Repeat("x", 1500))
	framed := append(binary.BigEndian.AppendUint32(nil, uint32(len(f))), f...)
	batch := bytes.Repeat(framed, 16)
	b.SetBytes(int64(len(batch)))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(io.Discard, theirsB)
	}()
	for b.Loop() {
		if _, err := theirsA.Write(batch); err != nil {
			b.Fatal(err)
		}
	}
	s.Close()
	<-done
	theirsA.Close()
	theirsB.Close()
}
