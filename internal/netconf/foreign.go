package netconf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"viver.lan/internal/contain"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/klog"
	"viver.lan/internal/sleep"
)

// askKnownEvery is how often everybody is asked while foreign servers are known:
// often enough that one which is gone is missed within two minutes.
const askKnownEvery = 10 * time.Second

// foreignWait is the time for an answer; one that comes later counts too. A
// server may ping an address before it offers it.
const foreignWait = 4 * time.Second

// ForeignWatch keeps an account of the foreign DHCP servers on a link: it hears
// what servers and clients say to each other all the time, and asks for an address
// now and then, because many servers answer the asker alone.
type ForeignWatch struct {
	Link    Link
	Foreign *dhcp.Foreign
	Log     *slog.Logger
	// Came and Gone are called when a server is heard for the first time, and
	// when one has not answered for long; they may be nil.
	Came func(dhcp.Observation)
	Gone func(server netip.Addr)
	// Looked is called once, after the first look of six seconds.
	Looked func()

	enquiries chan *dhcpv4.DHCPv4
	pace      askPace
	began     time.Duration // uptime; some servers answer only who waits for long
}

// askPace is how often everybody is asked.
type askPace struct {
	first  []time.Duration // the pauses of the first look
	every  time.Duration   // while no foreign server is known
	known  time.Duration   // while one is
	answer time.Duration   // for an answer
}

// NewForeignWatch returns a watch over a link that has not begun.
func NewForeignWatch(link Link, foreign *dhcp.Foreign, log *slog.Logger) *ForeignWatch {
	return &ForeignWatch{Link: link, Foreign: foreign, Log: log, enquiries: make(chan *dhcpv4.DHCPv4, 1),
		pace: askPace{first: probeWaits(), every: askServersEvery, known: askKnownEvery, answer: foreignWait}}
}

// Enquire asks whether another server would give an address to the machine that
// has sent discover. It returns at once; of many machines that come together some
// are left out.
func (w *ForeignWatch) Enquire(discover *dhcpv4.DHCPv4) {
	select {
	case w.enquiries <- dhcp.Enquiry(discover, newTransaction()):
	default:
	}
}

// An enquiry is sent at once and again after enquirePause: a server that pings an
// address before it offers it is deaf meanwhile, mostly for a second.
const (
	enquiries    = 2
	enquirePause = 1500 * time.Millisecond
)

// enquire sends what Enquire was told of until ctx ends.
func (w *ForeignWatch) enquire(ctx context.Context, s *packetSocket) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-w.enquiries:
			q := question{message: p, to: netip.AddrFrom4([4]byte{255, 255, 255, 255}), toMAC: broadcastMAC(), from: netip.IPv4Unspecified()}
			for range enquiries {
				if err := s.send(q.frame(w.Link.MAC)); err != nil {
					w.Log.Debug("DHCP enquiry not sent", "link", w.Link.Name, "err", err)
				}
				_ = sleep.For(ctx, enquirePause) // ctx is looked at above
			}
		}
	}
}

// Run watches until ctx ends, which is no error. It takes the link to have come up
// just now.
func (w *ForeignWatch) Run(ctx context.Context) error {
	s, err := openPacketSocket(w.Link.Index, etherTypeIPv4, udpToAny(dhcp.ServerPort, dhcp.ClientPort))
	if err != nil {
		return fmt.Errorf("look out for DHCP servers on %s: %w", w.Link.Name, err)
	}
	defer s.close()
	asking, enough := context.WithCancel(ctx)
	var aside sync.WaitGroup
	defer aside.Wait()
	defer enough()
	aside.Go(func() { w.enquire(asking, s) })
	for fault := (*contain.Error)(nil); ; {
		err = contain.Call(w.Log, "what DHCP servers say", func() error { return w.run(ctx, s) })
		if !errors.As(err, &fault) || sleep.For(ctx, time.Second) != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("look out for DHCP servers on %s: %w", w.Link.Name, err)
}

func (w *ForeignWatch) run(ctx context.Context, s *packetSocket) error {
	began := time.Now()
	w.began = klog.Uptime()
	for _, wait := range w.pace.first {
		if err := w.askOnce(ctx, s, wait); err != nil {
			return err
		}
	}
	if w.Looked != nil {
		w.Looked()
	}
	for {
		every := askPause(time.Since(began), w.pace.every)
		if w.Foreign.Present() {
			every = min(every, w.pace.known)
		}
		// Of a server that is new more is to be learnt at once: whether it
		// answers us, or is a boot host.
		if _, err := w.hear(ctx, s, jitter(every)[0], true); err != nil {
			return err
		}
		if err := w.askOnce(ctx, s, w.pace.answer); err != nil {
			return err
		}
		w.look(ctx)
		for _, server := range w.Foreign.Asked() {
			if w.Gone != nil {
				w.Gone(server)
			}
		}
	}
}

// askOnce asks everybody for an address and listens.
func (w *ForeignWatch) askOnce(ctx context.Context, s *packetSocket, wait time.Duration) error {
	q, err := newDiscover(w.Link.MAC, newTransaction(), netip.Addr{})
	if err != nil {
		return err
	}
	q.since(w.began)
	if err := s.send(q.frame(w.Link.MAC)); err != nil {
		w.Log.Debug("DHCP message not sent", "link", w.Link.Name, "err", err) // a link that is down for a moment
	}
	_, err = w.hear(ctx, s, wait, false)
	return err
}

// hear listens for a time, or until a server is new.
func (w *ForeignWatch) hear(ctx context.Context, s *packetSocket, wait time.Duration, untilNew bool) (found bool, err error) {
	err = s.receiveUntil(ctx, time.Now().Add(wait), func(frame []byte) bool {
		sign, ok := signOf(frame, w.Link.MAC)
		if !ok || !w.Foreign.Observe(sign) {
			return false
		}
		if w.Came != nil {
			w.Came(sign)
		}
		return untilNew
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	return err == nil, err
}

// look asks the link whether the machines of servers are there that do not answer
// us.
func (w *ForeignWatch) look(ctx context.Context) {
	for _, server := range w.Foreign.Hidden() {
		_, there, err := InUse(ctx, w.Link, server)
		if err == nil {
			w.Foreign.Found(server, there)
		}
	}
}

// followTime is how long a node asks after a sign of a foreign server.
const followTime = 30 * time.Second

// followServer is for a node whose address is a boot host's: when there is a sign of a
// foreign server it asks that one for an address, as the boot host does too, so
// that all nodes stay on one network. It returns nil when there was nothing to
// move to.
func (g *Guard) followServer(ctx context.Context, link Link, lease Lease) error {
	s, err := openPacketSocket(link.Index, etherTypeIPv4, udpToAny(dhcp.ServerPort, dhcp.ClientPort))
	if err != nil {
		return err
	}
	foreign := dhcp.NewForeign(lease.Address.Addr(), link.MAC, time.Now)
	err = s.receiveUntil(ctx, time.Time{}, func(frame []byte) bool {
		sign, ok := signOf(frame, link.MAC)
		return ok && foreign.Observe(sign)
	})
	s.close()
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, followTime)
	defer cancel()
	err = g.moveToServer(asking, link, lease)
	if asking.Err() != nil && ctx.Err() == nil {
		return nil // it gives none to us
	}
	return err
}

// signOf reads a frame that another machine sent; ok is false when it tells of no
// DHCP server.
func signOf(frame []byte, self ether.MAC) (sign dhcp.Observation, ok bool) {
	d, p, ok := overheard(frame, self)
	if !ok {
		return dhcp.Observation{}, false
	}
	return dhcp.ObservationOf(p, d.src.Addr(), d.dst.Addr())
}

// udpToAny matches IPv4 UDP datagrams to one of two ports and drops fragments.
func udpToAny(a, b uint16) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: etherHeader + 9, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipFalse: 7},
		bpf.LoadAbsolute{Off: etherHeader + 6, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: 5},
		bpf.LoadMemShift{Off: etherHeader},
		bpf.LoadIndirect{Off: etherHeader + 2, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(a), SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(b), SkipFalse: 1},
		bpf.RetConstant{Val: maxFrame},
		bpf.RetConstant{Val: 0},
	}
}
