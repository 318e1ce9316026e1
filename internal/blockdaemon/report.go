package blockdaemon

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"viver.lan/internal/vfield"
)

// screen is where a volume that stands alone speaks to whoever started it: log
// lines and, on a terminal, one line below them that is written again and
// again.
type screen struct {
	columns func() int // of the terminal; nil elsewhere

	mu   sync.Mutex
	w    io.Writer
	line string
}

func newScreen(f *os.File) *screen {
	s := &screen{w: f}
	if term.IsTerminal(int(f.Fd())) {
		s.columns = func() int {
			if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
				return width
			}
			return 80
		}
	}
	return s
}

const clearLine = "\r\x1b[K"

// Write implements io.Writer for log lines.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == "" {
		return s.w.Write(p)
	}
	if _, err := fmt.Fprintf(s.w, "%s%s%s", clearLine, p, s.line); err != nil {
		return 0, err
	}
	return len(p), nil
}

// show replaces the line at the bottom; "" takes it away. Without a terminal
// there is none.
func (s *screen) show(line string) {
	if s.columns == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	line = line[:min(len(line), max(s.columns()-1, 0))]
	if line != s.line {
		s.line = line
		fmt.Fprint(s.w, clearLine, line) // a terminal that is gone is no reason to stop
	}
}

// When a volume that stands alone says how it goes.
const (
	lookEvery   = time.Second
	fetchingLog = 5 * time.Second  // between log lines while it fetches
	silenceLog  = 30 * time.Second // between log lines while nobody answers
)

// progress is how far a node is, at one moment.
type progress struct {
	at           time.Time
	have, pieces int
	peers        int
	received     uint64
	sent         uint64
}

func progressOf(v vfield.Status, at time.Time) progress {
	return progress{at: at, have: v.Have, pieces: v.Pieces, peers: len(v.Peers),
		received: v.FromOrigin + v.FromPeers + v.FromMedium, sent: v.Sent}
}

// rate in bytes per second since before.
func (p progress) rate(before progress) float64 {
	return float64(p.received-before.received) / max(p.at.Sub(before.at).Seconds(), 1e-3)
}

// line tells people how far this is.
func (p progress) line(before progress) string {
	return fmt.Sprintf("%d of %d pieces (%d %%), %.1f MB/s, sent %.1f MB, %d peers", p.have, p.pieces,
		100*p.have/max(p.pieces, 1), p.rate(before)/1e6, float64(p.sent)/1e6, p.peers)
}

// report tells how it goes: on a terminal all the time, in the log while the
// image is fetched, and whenever nobody is there who could send it.
func (s *standalone) report(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last := progressOf(s.volume.Status(), time.Now())
	begin, logged, complete := last.at, last, last.have == last.pieces
	var alone, complained time.Time // since when no peer is connected
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			v := s.volume.Status()
			p := progressOf(v, now)
			s.screen.show(p.line(last))
			last = p
			switch {
			case complete:
			case p.have == p.pieces:
				complete = true
				s.log.Info("complete", "pieces", p.pieces, "seconds", now.Sub(begin).Round(100*time.Millisecond).Seconds())
			case p.peers == 0:
				if alone.IsZero() {
					alone = now
				}
				if now.Sub(alone) >= fetchingLog && now.Sub(complained) >= silenceLog {
					complained = now
					s.log.Warn(s.whoIsMissing(), "have", p.have, "pieces", p.pieces)
				}
			default:
				alone = time.Time{}
				every := fetchingLog
				if v.Budget < s.info.Size { // it is never done
					every = silenceLog
				}
				if p.received != logged.received && now.Sub(logged.at) >= every && s.screen.columns == nil {
					s.log.Info("fetching", "have", p.have, "pieces", p.pieces, "mb_per_second", fmt.Sprintf("%.1f", p.rate(logged)/1e6), "peers", p.peers)
					logged = p
				}
			}
		}
	}
}

// whoIsMissing says for whom a node waits that has no peer.
func (s *standalone) whoIsMissing() string {
	o := s.options
	var asked []string
	for _, list := range [][]netip.AddrPort{o.Origins, o.Peers, o.Seeds} {
		for _, a := range list {
			asked = append(asked, a.String())
		}
	}
	if len(asked) == 0 {
		return "waiting for somebody to connect: no --origin, --peer or --seed says whom to ask"
	}
	return "no answer from " + strings.Join(asked, ", ") + "; asking again and again"
}
