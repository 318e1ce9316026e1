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

	"viver.lan/internal/bootnet"
	"viver.lan/internal/contain"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/klog"
	"viver.lan/internal/packet"
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
	Link    bootnet.Link
	Foreign *dhcp.Foreign
	Log     *slog.Logger
	// Came and Gone are called when a server is heard for the first time, and
	// when one has not answered for long; they may be nil.
	Came func(dhcp.Sign)
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
func NewForeignWatch(link bootnet.Link, foreign *dhcp.Foreign, log *slog.Logger) *ForeignWatch {
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
func (w *ForeignWatch) enquire(ctx context.Context, s *packet.Socket) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-w.enquiries:
			q := question{message: p, to: netip.AddrFrom4([4]byte{255, 255, 255, 255}), toMAC: packet.BroadcastMAC(), from: netip.IPv4Unspecified()}
			for range enquiries {
				if err := s.Send(q.frame(w.Link.MAC)); err != nil {
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
	s, err := packet.Open(w.Link.Index, packet.EtherTypeIPv4, packet.UDPTo(dhcp.ServerPort, dhcp.ClientPort))
	if err != nil {
		return fmt.Errorf("look out for DHCP servers on %s: %w", w.Link.Name, err)
	}
	defer s.Close()
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

func (w *ForeignWatch) run(ctx context.Context, s *packet.Socket) error {
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
func (w *ForeignWatch) askOnce(ctx context.Context, s *packet.Socket, wait time.Duration) error {
	q, err := newDiscover(w.Link.MAC, newTransaction(), netip.Addr{})
	if err != nil {
		return err
	}
	q.since(w.began)
	if err := s.Send(q.frame(w.Link.MAC)); err != nil {
		w.Log.Debug("DHCP message not sent", "link", w.Link.Name, "err", err) // a link that is down for a moment
	}
	_, err = w.hear(ctx, s, wait, false)
	return err
}

// hear listens for a time, or until a server is new.
func (w *ForeignWatch) hear(ctx context.Context, s *packet.Socket, wait time.Duration, untilNew bool) (found bool, err error) {
	err = s.ReceiveUntil(ctx, time.Now().Add(wait), func(frame []byte) bool {
		sign, ok := signOf(frame, w.Link.MAC)
		if !ok || !w.Foreign.Hear(sign) {
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
		_, there, err := bootnet.InUse(ctx, w.Link, server)
		if err == nil {
			w.Foreign.Found(server, there)
		}
	}
}
