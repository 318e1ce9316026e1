package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"viver.lan/internal/control"
	"viver.lan/internal/event"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/netbed"
	"viver.lan/internal/netbed/netbedtest"
)

// A network of real processes for the tests of faults: node 0 of a bed is the
// first node of an image, the others run vfield without a medium, readers read
// through NBD. Nothing here looks inside a process; what a test waits for is
// what the status socket and the log say.

// deadline is long: what is tested is that things happen, not how fast.
const deadline = 2 * time.Minute

// until waits until something holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// room is a bed, an image, and what runs there.
type room struct {
	t        *testing.T
	bed      *netbed.Bed
	info     *metainfo.Info
	data     []byte
	dir      string // the image's files
	metainfo string
}

// newRoom makes a bed and an image of random bytes for it. It returns nil in
// the outer process, whose test ends then.
func newRoom(t *testing.T, nodes int, mbit int64, pieces int) *room {
	t.Helper()
	if !netbedtest.Enter(t) {
		return nil
	}
	// Memory of our own: what a killed process leaves goes with the test.
	if err := syscall.Mount("tmpfs", "/dev/shm", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	r := &room{t: t, dir: t.TempDir(), metainfo: filepath.Join(t.TempDir(), "image.torrent")}
	const piece = 64 << 10
	r.data = make([]byte, pieces*piece-1234)
	rand.NewChaCha8([32]byte{7}).Read(r.data)
	path := filepath.Join(r.dir, "root.squashfs")
	if err := os.WriteFile(path, r.data, 0o600); err != nil {
		t.Fatal(err)
	}
	torrent, info, err := metainfo.Create("room", []metainfo.Source{{Name: "root.squashfs", Path: path}}, piece, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.metainfo, torrent, 0o600); err != nil {
		t.Fatal(err)
	}
	r.info = info
	if r.bed, err = netbed.New(netbed.Config{Nodes: nodes, Rate: mbit * 1e6}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.bed.Close(); err != nil {
			t.Errorf("close the bed: %v", err)
		}
	})
	return r
}

const (
	nbdPort    = 10809
	gossipPort = 7946
)

// machine is one running vfield.
type machine struct {
	*server
	room *room
	node *netbed.Node
	args []string
}

// start runs vfield on node i. It knows the other nodes' addresses unless the
// arguments say more.
func (r *room) start(i int, args ...string) *machine {
	r.t.Helper()
	node := r.bed.Node(i)
	return r.launch(node, fmt.Sprintf("node-%d", i), append([]string{
		"--listen", node.AddrPort(nbdPort).String(), "--swarm", node.AddrPort(control.SwarmPort).String(),
		"--key", filepath.Join(r.t.TempDir(), "key"), // the same node after a restart
	}, args...)...)
}

func (r *room) launch(node *netbed.Node, name string, args ...string) *machine {
	r.t.Helper()
	socket := filepath.Join(r.t.TempDir(), "s")
	m := &machine{room: r, node: node, args: append(args, "--metainfo", r.metainfo, "--status", socket, "--name", name)}
	m.server = serve(r.t, name, m.command(), printing(r.t, name), socket)
	return m
}

func (m *machine) command() *exec.Cmd {
	cmd := m.node.Command(context.Background(), os.Args[0], m.args...)
	cmd.Env = append(os.Environ(), actAs+"=vfield")
	return cmd
}

// run starts the process again after it was killed.
func (m *machine) run() {
	m.room.t.Helper()
	m.server = serve(m.room.t, m.name, m.command(), m.log, m.socket)
}

// origin starts node i as the first node.
func (r *room) origin(i int, args ...string) *machine {
	return r.start(i, append([]string{"--data", r.dir}, args...)...)
}

// know names nodes as peers, the first node as such.
func (r *room) know(origin int, peers ...int) (args []string) {
	if origin >= 0 {
		args = append(args, "--origin", r.bed.Node(origin).AddrPort(control.SwarmPort).String())
	}
	for _, p := range peers {
		args = append(args, "--peer", r.bed.Node(p).AddrPort(control.SwarmPort).String())
	}
	return args
}

func (m *machine) swarm() netip.AddrPort { return m.node.AddrPort(control.SwarmPort) }

// signal sends the process a signal.
func (m *machine) signal(s syscall.Signal) {
	m.room.t.Helper()
	if err := m.cmd.Process.Signal(s); err != nil {
		m.room.t.Fatalf("signal %v to node %d: %v", s, m.node.Index(), err)
	}
}

// kill ends the process as a power failure does and waits until it is gone.
func (m *machine) kill() {
	m.room.t.Helper()
	m.signal(syscall.SIGKILL)
	<-m.done
}

// holds is the number of pieces that the node holds; 0 when it does not say.
func (m *machine) holds() int { return m.transfer().Have }

// waits waits until the status says what is missing, and why a read waits, in words
// that match.
func (m *machine) waits(missing, reason string) {
	m.room.t.Helper()
	what := fmt.Sprintf("node %d says what is missing (%q) and why a read waits (%q)", m.node.Index(), missing, reason)
	until(m.room.t, what, func() bool {
		s, err := m.status()
		return err == nil && len(s.Waiting) > 0 && regexp.MustCompile(missing).MatchString(event.OutOfReach(s.OutOfReach, s.Transfer.Pieces, s.OriginAnswers)) &&
			regexp.MustCompile(reason).MatchString(s.Waiting[0].String())
	})
}

// complete waits until the machines hold everything.
func (r *room) complete(machines ...*machine) {
	r.t.Helper()
	for _, m := range machines {
		until(r.t, fmt.Sprintf("node %d holds everything", m.node.Index()), m.complete)
	}
}

// spread is how far an image has come: the mean share that the machines hold.
func (r *room) spread(machines []*machine) float64 {
	sum := 0
	for _, m := range machines {
		sum += m.holds()
	}
	return float64(sum) / float64(len(machines)*r.info.NumPieces())
}

// reader is an NBD client that reads as a kernel does: several requests at a
// time, and when the connection breaks it connects again and asks again.
type reader struct {
	m    *machine
	done chan struct{}
	err  error         // valid when done
	slow time.Duration // the longest single read
}

// errWrongBytes must never be seen.
var errWrongBytes = errors.New("wrong bytes")

// read begins to read the volume from start to end, and around from off. It gives up
// at the end of the test.
func (m *machine) read(off int64) *reader {
	ctx, r := m.room.t.Context(), &reader{m: m, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		size := int64(len(m.room.data))
		const step = 128 << 10
		var c *nbdClient
		for n := int64(0); n < size; {
			at := (off + n) % size
			length := min(step, size-n, size-at)
			begin := time.Now()
			var err error
			if c == nil {
				c, err = m.dial(ctx)
			}
			if err == nil {
				err = c.readAt(make([]byte, length), at)
			}
			switch {
			case ctx.Err() != nil:
				r.err = ctx.Err()
				return
			case errors.Is(err, errEIO) || errors.Is(err, errWrongBytes):
				r.err = fmt.Errorf("read at %d: %w", at, err)
				return
			case err != nil: // the daemon is gone for a moment
				c = nil
				time.Sleep(20 * time.Millisecond)
				continue
			}
			r.slow = max(r.slow, time.Since(begin))
			n += length
		}
	}()
	return r
}

// finish waits until the reader has read everything.
func (r *reader) finish() {
	t := r.m.room.t
	t.Helper()
	select {
	case <-r.done:
		if r.err != nil {
			t.Errorf("reader on node %d: %v", r.m.node.Index(), r.err)
		}
	case <-time.After(deadline):
		t.Fatalf("the reader on node %d does not get on", r.m.node.Index())
	}
}

// running reports whether the reader still reads.
func (r *reader) running() bool {
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}

// nbdClient is a client of the protocol's oldest way in, one request at a time.
type nbdClient struct {
	conn   net.Conn
	data   []byte // what it must read
	cookie uint64
}

var errEIO = errors.New("the server answers with an error")

// dial connects to the machine's default export.
func (m *machine) dial(ctx context.Context) (*nbdClient, error) {
	conn, err := m.node.Dial(ctx, "tcp", m.node.AddrPort(nbdPort).String())
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	c := &nbdClient{conn: conn, data: m.room.data}
	if err := c.handshake(); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *nbdClient) handshake() error {
	const fixedNewstyle, noZeroes, exportName = 1, 2, 1
	if _, err := io.ReadFull(c.conn, make([]byte, 18)); err != nil {
		return err
	}
	b := binary.BigEndian.AppendUint32(nil, fixedNewstyle|noZeroes)
	b = append(b, "IHAVEOPT"...)
	b = binary.BigEndian.AppendUint32(b, exportName)
	b = binary.BigEndian.AppendUint32(b, 0) // the default export
	if _, err := c.conn.Write(b); err != nil {
		return err
	}
	var export [10]byte
	if _, err := io.ReadFull(c.conn, export[:]); err != nil {
		return err
	}
	if size := binary.BigEndian.Uint64(export[:]); size != uint64(len(c.data)) {
		return fmt.Errorf("the export has %d bytes, want %d: %w", size, len(c.data), errWrongBytes)
	}
	return nil
}

// readAt reads and compares.
func (c *nbdClient) readAt(p []byte, off int64) error {
	c.cookie++
	b := binary.BigEndian.AppendUint32(nil, 0x25609513)
	b = binary.BigEndian.AppendUint32(b, 0) // no flags, a read
	b = binary.BigEndian.AppendUint64(b, c.cookie)
	b = binary.BigEndian.AppendUint64(b, uint64(off))
	b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
	if _, err := c.conn.Write(b); err != nil {
		return err
	}
	var reply [16]byte
	if _, err := io.ReadFull(c.conn, reply[:]); err != nil {
		return err
	}
	if code := binary.BigEndian.Uint32(reply[4:]); code != 0 {
		return fmt.Errorf("%w: %d", errEIO, code)
	}
	if cookie := binary.BigEndian.Uint64(reply[8:]); cookie != c.cookie {
		return fmt.Errorf("an answer to request %d, not %d: %w", cookie, c.cookie, errWrongBytes)
	}
	if _, err := io.ReadFull(c.conn, p); err != nil {
		return err
	}
	if !bytes.Equal(p, c.data[off:off+int64(len(p))]) {
		return errWrongBytes
	}
	return nil
}
