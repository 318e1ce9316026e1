// Package dhcpwatch is what a boot host learns from the DHCP traffic of other machines:
// which foreign servers are there, and who asks without success.
//
// It takes no lease and answers nobody. It opens no UDP port, which a program of what
// was booted may want. The invariant: what it observes are claims that anybody on the
// link can make, so a foreign server only ever makes a boot host answer less (package
// dhcp: Foreign). What Requests observes can make one answer, as any request does.
package dhcpwatch

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
	"viver.lan/internal/dhcpclient"
	"viver.lan/internal/klog"
	"viver.lan/internal/packet"
	"viver.lan/internal/sleep"
)

// knownEvery is how often all servers are asked while foreign ones are known: often
// enough that one which is gone is missed within two minutes.
const knownEvery = 10 * time.Second

// ForeignWatch keeps an account of the foreign DHCP servers on a link: it listens to
// what servers and clients send all the time, and asks for an address now and then,
// because many servers answer the asker alone.
type ForeignWatch struct {
	link    bootnet.Card
	foreign *dhcp.Foreign
	log     *slog.Logger
	// Found and Gone are called when a server is heard for the first time, and when one
	// has not answered for long.
	Found func(dhcp.Observation)
	Gone  func(server netip.Addr)
	// Ready is called once, after the first round of six seconds.
	Ready func()

	enquiries chan *dhcpv4.DHCPv4
	pace      askPace
	began     time.Duration // uptime; some servers answer only who waits for long
}

// askPace is how often all servers are asked.
type askPace struct {
	first  []time.Duration // the pauses of the first round
	every  time.Duration   // while no foreign server is known
	known  time.Duration   // while one is
	answer time.Duration   // for an answer
}

// NewForeignWatch returns a watch over a link that has not begun; Found, Gone and Ready
// are to be set.
func NewForeignWatch(link bootnet.Card, foreign *dhcp.Foreign, log *slog.Logger) *ForeignWatch {
	return &ForeignWatch{link: link, foreign: foreign, log: log, enquiries: make(chan *dhcpv4.DHCPv4, 1),
		pace: askPace{first: dhcpclient.DiscoverPauses(), every: dhcpclient.AskEvery, known: knownEvery, answer: dhcpclient.OfferWait}}
}

// Enquire asks whether another server would give an address to the machine that
// has sent discover. It returns at once; of many machines that come together some
// are left out.
func (w *ForeignWatch) Enquire(discover *dhcpv4.DHCPv4) {
	select {
	case w.enquiries <- dhcp.Enquiry(discover, dhcpclient.NewTransaction()):
	default:
	}
}

// An enquiry is sent at once and again after enquirePause: a server that pings an
// address before it offers it receives nothing meanwhile, mostly for a second.
const (
	enquiries    = 2
	enquirePause = 1500 * time.Millisecond
)

// sendEnquiries sends what Enquire queued, until ctx ends.
func (w *ForeignWatch) sendEnquiries(ctx context.Context, s *packet.Socket) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-w.enquiries:
			frame := dhcpclient.BroadcastFrame(p, w.link.MAC)
			for range enquiries {
				if err := s.Send(frame); err != nil {
					w.log.Debug("DHCP enquiry not sent", "link", w.link.Name, "error", err)
				}
				_ = sleep.For(ctx, enquirePause) // the loop checks ctx
			}
		}
	}
}

// Run watches until ctx ends, which is no error. It takes the link to have come up
// just now.
func (w *ForeignWatch) Run(ctx context.Context) error {
	s, err := packet.Open(w.link.Index, packet.EtherTypeIPv4, packet.UDPTo(dhcp.ServerPort, dhcp.ClientPort))
	if err != nil {
		return fmt.Errorf("watch for DHCP servers on %s: %w", w.link.Name, err)
	}
	defer s.Close()
	enquiring, stop := context.WithCancel(ctx)
	var sending sync.WaitGroup
	defer sending.Wait()
	defer stop()
	sending.Go(func() { w.sendEnquiries(enquiring, s) })
	for panicked := (*contain.Error)(nil); ; {
		err = contain.Call(w.log, "what DHCP servers say", func() error { return w.run(ctx, s) })
		if !errors.As(err, &panicked) || sleep.For(ctx, time.Second) != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("watch for DHCP servers on %s: %w", w.link.Name, err)
}

func (w *ForeignWatch) run(ctx context.Context, s *packet.Socket) error {
	began := time.Now()
	w.began = klog.Uptime()
	for _, wait := range w.pace.first {
		if err := w.askOnce(ctx, s, wait); err != nil {
			return err
		}
	}
	w.Ready()
	for {
		every := dhcpclient.AskPause(time.Since(began), w.pace.every)
		if w.foreign.Present() {
			every = min(every, w.pace.known)
		}
		// A new server is asked at once: does it answer us, is it a boot host?
		if err := w.listen(ctx, s, sleep.Jitter(every), true); err != nil {
			return err
		}
		if err := w.askOnce(ctx, s, w.pace.answer); err != nil {
			return err
		}
		w.probeHidden(ctx)
		for _, server := range w.foreign.Asked() {
			w.Gone(server)
		}
	}
}

// askOnce asks all servers for an address and listens.
func (w *ForeignWatch) askOnce(ctx context.Context, s *packet.Socket, wait time.Duration) error {
	discover, err := dhcpclient.DiscoverFrame(w.link.MAC, w.began)
	if err != nil {
		return err
	}
	if err := s.Send(discover); err != nil {
		w.log.Debug("DHCP message not sent", "link", w.link.Name, "error", err) // a link that is down for a moment
	}
	return w.listen(ctx, s, wait, false)
}

// listen listens for a time, or until a server is new.
func (w *ForeignWatch) listen(ctx context.Context, s *packet.Socket, wait time.Duration, untilNew bool) error {
	err := s.ReceiveUntil(ctx, time.Now().Add(wait), func(frame []byte) bool {
		observation, ok := dhcpclient.ObservationOf(frame, w.link.MAC)
		if !ok || !w.foreign.Observe(observation) {
			return false
		}
		w.Found(observation)
		return untilNew
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// probeHidden probes for the machines of servers that do not answer us.
func (w *ForeignWatch) probeHidden(ctx context.Context) {
	for _, server := range w.foreign.Hidden() {
		_, there, err := bootnet.InUse(ctx, w.link, server)
		if err == nil {
			w.foreign.Found(server, there)
		}
	}
}
