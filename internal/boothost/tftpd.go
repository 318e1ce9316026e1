package boothost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"viver.lan/internal/dhcp"
	"viver.lan/internal/tftp"
)

// Limits of the TFTP server. Firmware fetches one file at a time.
const (
	tftpPort      = 69
	tftpTransfers = 256 // at once, from all
	tftpPerClient = 4   // at once, from one address
	tftpWindow    = 16  // blocks; 6 MB for all transfers. OVMF asks for 4, others for up to 64
	tftpTimeout   = time.Second
	tftpRetries   = 4          // a client that is gone keeps its place for 23 s
	tftpHeaders   = 20 + 8 + 4 // bytes of IP, UDP and TFTP before a block
	tftpBlock     = dhcp.EthernetMTU - tftpHeaders
	tftpSmallest  = 512         // bytes; a client that names no size gets this one (RFC 1350)
	mtuEvery      = time.Second // how often the link's MTU is read
	maxNameLogged = 128
)

// tftpServer serves the small entries of the catalog, to read only.
type tftpServer struct {
	host    *Host
	slowest slowness
	conn    *net.UDPConn
}

func newTFTPServer(h *Host) *tftpServer {
	return &tftpServer{host: h, slowest: slowness{rate: tftpSlowest, grace: slowGrace, now: time.Now}}
}

func (s *tftpServer) name() string { return "tftp" }

func (s *tftpServer) open(ctx context.Context) (err error) {
	s.conn, err = listenUDP(ctx, s.host.cfg.Interface.Name, netip.IPv4Unspecified(), tftpPort)
	return err
}

func (s *tftpServer) serve(ctx context.Context) error {
	s.host.readMTU()
	mtuCtx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	group.Go(func() { s.host.followMTU(mtuCtx) })
	server := tftp.Server{
		Limits: tftp.Limits{
			Transfers: tftpTransfers, PerClient: tftpPerClient, Window: tftpWindow, Timeout: tftpTimeout, Retries: tftpRetries,
			Block: func() int { return blockFor(int(s.host.mtu.Load())) },
		},
		Open: func(ctx context.Context, local netip.Addr) (tftp.Conn, error) {
			return listenUDP(ctx, s.host.cfg.Interface.Name, local, 0)
		},
		Handle: func(ctx context.Context, t *tftp.Transfer) error { return s.read(ctx, t) },
		Log:    s.host.cfg.Log,
	}
	return server.Serve(ctx, s.conn)
}

// followMTU notes what the link carries until ctx ends: a lease may change it at
// any time.
func (h *Host) followMTU(ctx context.Context) {
	tick := time.NewTicker(mtuEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.readMTU()
		}
	}
}

// blockFor returns the largest block that goes into one frame of a link, and of a
// common switch behind it: boot ROMs drop fragments.
func blockFor(mtu int) int {
	return max(min(tftpBlock, mtu-tftpHeaders), tftpSmallest)
}

// readMTU notes the link's MTU. If it cannot be read the last known one stays.
func (h *Host) readMTU() {
	if now, err := net.InterfaceByIndex(h.cfg.Interface.Index); err == nil {
		h.mtu.Store(int64(now.MTU))
	}
}

// request is a file that a client asks for by TFTP.
type request interface {
	Name() string
	From() netip.AddrPort
	// Send is tftp.Transfer's.
	Send(ctx context.Context, r io.Reader, size int64) (int64, error)
}

// read answers one request. Its error becomes the client's error message.
func (s *tftpServer) read(ctx context.Context, asked request) error {
	log := s.host.cfg.Log.With("file", clip(asked.Name()))
	from := asked.From().Addr()
	r, ok := s.host.find(asked.Name(), from, false)
	if !ok || !r.tftp {
		log.Debug("tftp: no such file", "from", from)
		return &tftp.Error{Code: tftp.FileNotFound, Text: "file not found"}
	}
	file, err := r.open(ctx)
	if err != nil {
		log.Warn("tftp: open failed", "from", from, "error", err)
		return errors.New("file cannot be read now")
	}
	defer file.Close()
	start := time.Now()
	n, err := asked.Send(ctx, timelyReader{newPacedReader(file, s.slowest)}, r.size)
	s.host.counters.sent(s.name(), n)
	var aborted *tftp.Aborted
	switch {
	case err == nil:
		s.host.machines.noteTransfer(from, r.name, n)
		log.Info("tftp: sent", "to", from, "bytes", n, "seconds", time.Since(start).Seconds())
	case errors.As(err, &aborted) && !aborted.Started:
		// Firmware asks for the size, aborts, and then asks for the file.
		log.Debug("tftp: only the size was requested", "from", from)
		err = nil
	default:
		log.Warn("tftp: aborted", "to", from, "bytes", n, "error", err)
	}
	s.host.counters.transfer(s.name(), err)
	if ctx.Err() != nil {
		err = fmt.Errorf("the boot host stops: %w", err)
	}
	return err
}

// timelyReader ends a transfer that is too slow. It is read when the client has
// confirmed an earlier block.
type timelyReader struct{ *pacedReader }

func (t timelyReader) Read(p []byte) (int, error) {
	if t.late() {
		return 0, errTooSlow
	}
	return t.pacedReader.Read(p)
}

// clip shortens a name that a client sent for a log line.
func clip(name string) string {
	if len(name) > maxNameLogged {
		return name[:maxNameLogged] + "…"
	}
	return name
}
