package boothost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/pin/tftp/v3"

	"viver.lan/internal/contain"
	"viver.lan/internal/dhcp"
)

// Limits of the TFTP server. Firmware fetches one file at a time.
const (
	tftpPort        = 69
	tftpTransfers   = 256 // at once, from all
	tftpPerClient   = 4   // at once, from one address
	tftpTimeout     = time.Second
	tftpRetries     = 6
	tftpHeaders     = 20 + 8 + 4 // bytes of IP, UDP and TFTP before a block
	tftpBlock       = dhcp.EthernetMTU - tftpHeaders
	tftpSmallest    = 512         // bytes; a client that names no size gets this one (RFC 1350)
	mtuEvery        = time.Second // how often the link's MTU is read
	maxNameLogged   = 128
	tftpAbortPrefix = "sending block 0: " // how pin/tftp reports an answer to OACK
)

// tftpServer serves the small entries of the catalog, to read only.
type tftpServer struct {
	host    *Host
	slowest slowness
	conn    *net.UDPConn

	mu     sync.Mutex
	total  int
	active map[netip.Addr]int
}

func newTFTPServer(h *Host) *tftpServer {
	return &tftpServer{
		host: h, slowest: slowness{rate: tftpSlowest, grace: slowGrace, now: time.Now},
		active: make(map[netip.Addr]int),
	}
}

func (s *tftpServer) name() string { return "tftp" }

func (s *tftpServer) open(ctx context.Context) (err error) {
	s.conn, err = listenUDP(ctx, s.host.cfg.Interface.Name, tftpPort)
	return err
}

func (s *tftpServer) serve(ctx context.Context) error {
	if ctx.Err() != nil {
		return s.conn.Close()
	}
	server := tftp.NewServer(func(name string, to io.ReaderFrom) error {
		return contain.Call(s.host.cfg.Log, "a TFTP transfer", func() error { return s.read(ctx, name, to) })
	}, nil)
	// pin/tftp leaves no room for its own header below the MTU: a client that
	// asks for more would get every block in two fragments, which boot ROMs drop.
	server.SetBlockSize(blockFor(s.host.readMTU()))
	mtuCtx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	group.Go(func() { s.followMTU(mtuCtx, server) })
	server.SetTimeout(tftpTimeout)
	server.SetRetries(tftpRetries)
	server.SetBackoff(func(int) time.Duration { return 0 }) // the time-out has been waited for already
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		server.Shutdown() // waits for the transfers, which see ctx
	})
	err := server.Serve(s.conn)
	if !stop() {
		<-done
	}
	return err
}

// followMTU keeps blocks as small as the link's frames until ctx ends: a lease may
// change what the link carries at any time.
func (s *tftpServer) followMTU(ctx context.Context, server *tftp.Server) {
	tick := time.NewTicker(mtuEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			server.SetBlockSize(blockFor(s.host.readMTU()))
		}
	}
}

// blockFor returns the largest block that goes into one frame of a link, and of a
// common switch behind it.
func blockFor(mtu int) int {
	return max(min(tftpBlock, mtu-tftpHeaders), tftpSmallest+1) // the library takes no less
}

// readMTU returns the link's MTU, the last known one if it cannot be read.
func (h *Host) readMTU() int {
	if now, err := net.InterfaceByIndex(h.cfg.Interface.Index); err == nil {
		h.mtu.Store(int64(now.MTU))
	}
	return int(h.mtu.Load())
}

// read answers one read request. Its error becomes the client's error message.
func (s *tftpServer) read(ctx context.Context, name string, to io.ReaderFrom) error {
	log := s.host.cfg.Log.With("file", clip(name))
	out, ok := to.(tftp.OutgoingTransfer)
	if !ok {
		return errors.New("internal error")
	}
	remote := out.RemoteAddr()
	from := remote.AddrPort().Addr().Unmap()
	if !s.enter(from) { // first of all, because find may connect to another node
		log.Warn("tftp: too many transfers at once", "from", from)
		return errors.New("busy, try again")
	}
	defer s.leave(from)
	r, ok := s.host.find(name, from, false)
	if !ok || !r.tftp {
		log.Debug("tftp: no such file", "from", from)
		return errors.New("file not found")
	}
	file, err := r.open(ctx)
	if err != nil {
		log.Warn("tftp: open failed", "from", from, "error", err)
		return errors.New("file cannot be read now")
	}
	defer file.Close()
	out.SetSize(r.size)
	start := time.Now()
	n, err := to.ReadFrom(&stopReader{newPacedReader(file, s.slowest), ctx})
	s.host.metrics.sent(s.name(), n)
	switch {
	case err == nil:
		s.host.machines.noteTransfer(from, r.name, n)
		log.Info("tftp: sent", "to", from, "bytes", n, "seconds", time.Since(start).Seconds())
	case n == 0 && strings.HasPrefix(err.Error(), tftpAbortPrefix):
		// Firmware asks for the size, aborts, and then asks for the file.
		log.Debug("tftp: only the size was requested", "from", from)
		err = nil
	default:
		log.Warn("tftp: aborted", "to", from, "bytes", n, "error", err)
	}
	s.host.metrics.transfer(s.name(), err)
	return err
}

func (s *tftpServer) enter(from netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.total >= tftpTransfers || s.active[from] >= tftpPerClient {
		return false
	}
	s.total++
	s.active[from]++
	return true
}

func (s *tftpServer) leave(from netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.active[from]--; s.active[from] == 0 {
		delete(s.active, from)
	}
}

// stopReader ends a transfer when ctx does, and one that is too slow. It is read
// once per block, when the client has confirmed the one before.
type stopReader struct {
	*pacedReader
	ctx context.Context
}

func (s *stopReader) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, fmt.Errorf("the boot host stops: %w", err)
	}
	if s.late() {
		return 0, errTooSlow
	}
	return s.pacedReader.Read(p)
}

// clip shortens a name that a client sent for a log line.
func clip(name string) string {
	if len(name) > maxNameLogged {
		return name[:maxNameLogged] + "…"
	}
	return name
}
