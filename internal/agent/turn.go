package agent

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"viver.lan/internal/boothost"
	"viver.lan/internal/cluster"
	"viver.lan/internal/control"
	"viver.lan/internal/copies"
)

// answerTime is how long a live machine on the same cable may take to answer.
const answerTime = 300 * time.Millisecond

// turns knows this machine's place among the boot hosts of its network.
type turns struct {
	daemon *control.Client
	self   boothost.Member
	words  *words
	log    *slog.Logger
	turn   atomic.Int32
	whole  atomic.Pointer[[]netip.AddrPort]
	// warning is what people have to know about who else serves, and note the
	// same where only look sees it.
	warning atomic.Pointer[string]
	note    string
	// since is when a machine with a medium began on a network that has a boot
	// host already; the zero time where it has none.
	since time.Time
	help  *help
}

// acquaintTime is how long such a machine leaves the first answer to others: by
// then it has heard which image they have.
const acquaintTime = 10 * time.Second

func newTurns(daemon *control.Client, here place, words *words, log *slog.Logger) *turns {
	boot := here.boot
	t := &turns{daemon: daemon, self: boothost.Member{MAC: boot.MAC, First: boot.First}, words: words, log: log, help: newHelp(time.Now, log)}
	if boot.First && here.network.Lease.Viver {
		t.since = time.Now()
		t.turn.Store(boothost.Hosts - 1)
	}
	if !boot.First {
		t.turn.Store(boothost.Hosts) // until the block daemon has told who else is here
	}
	return t
}

func (t *turns) now() int { return int(t.turn.Load()) }

// warnings are for the status page.
func (t *turns) warnings() string {
	if w := t.warning.Load(); w != nil {
		return *w
	}
	return ""
}

// peers are the HTTP servers of the other nodes that hold the whole image.
func (t *turns) peers() []netip.AddrPort {
	if p := t.whole.Load(); p != nil {
		return *p
	}
	return nil
}

// await waits until it is this machine's turn to serve, or no longer (false).
// It is always under way, so what the operator says is heard here too, before
// the first machine is served.
func (t *turns) await(ctx context.Context, serving bool) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		t.words.look(ctx)
		t.look(ctx)
		if (t.now() < boothost.Hosts) == serving {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// look asks the block daemon for the members. When it does not answer,
// everything stays as it was.
func (t *turns) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	status, err := t.daemon.Status(ctx)
	if err != nil {
		t.log.Debug("who else serves is not known now", "error", err)
		return
	}
	t.words.members(status.Members)
	whole := wholePeers(t.self, status)
	t.whole.Store(&whole)
	if note := status.MediaNote(); note != t.note {
		t.note = note
		t.warning.Store(&note)
		if note != "" && t.self.First {
			t.log.Warn(note)
		}
	}
	turn := turnAmong(t.self, status)
	if status.OutOfReach == 0 {
		turn = t.help.turn(turn)
	}
	if !t.since.IsZero() && time.Since(t.since) < acquaintTime {
		turn = max(turn, boothost.Hosts-1)
	}
	if old := t.turn.Swap(int32(turn)); int(old) != turn {
		t.log.Info("place among the boot hosts", "turn", turn, "was", old, "of", boothost.Hosts)
	}
}

// wholePeers returns where the live nodes serve that hold the whole image. Machines
// that boot are sent there, so of those who only say so none is taken that proved no
// key, or was found out.
func wholePeers(self boothost.Member, s *control.Status) (out []netip.AddrPort) {
	has := make(map[netip.Addr]bool)
	for _, p := range s.Peers {
		addr, err := netip.ParseAddrPort(p.Address)
		if err == nil && p.Ours && p.Proof != copies.Failed.String() && p.Have == s.Transfer.Pieces && s.Transfer.Pieces > 0 {
			has[addr.Addr()] = true
		}
	}
	for _, m := range s.Members {
		addr, err := netip.ParseAddr(m.Address)
		if err != nil || m.State != string(cluster.Alive) || m.Standing == string(cluster.Disputed) || m.MAC == self.MAC || !has[addr] {
			continue
		}
		delete(has, addr) // one turn for each address
		port := uint16(control.StandByPort)
		if m.First {
			port = control.HTTPPort
		}
		out = append(out, netip.AddrPortFrom(addr, port))
	}
	return out
}

// answers reports whether a server of this network takes connections.
func answers(server netip.AddrPort) bool {
	conn, err := net.DialTimeout("tcp4", server.String(), answerTime)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// turnAmong works out the turn from the live members that run the same image.
// A machine that could not hand out the whole image leaves it to others. Where a
// machine has a medium with another image that comes before ours (see
// control.Status.Media), all with ours answer last, so that what a machine boots
// is no matter of chance.
//
// Keys and MAC addresses are easily made up, so all members of one address are one
// boot host, and the machine with the medium never leaves all to others.
func turnAmong(self boothost.Member, s *control.Status) int {
	if s.OutOfReach > 0 && !self.First {
		return boothost.Hosts
	}
	var others []boothost.Member
	counted := map[string]bool{s.Address: true}
	for _, m := range s.Members {
		if m.State != string(cluster.Alive) || m.Standing == string(cluster.Disputed) || m.MAC == self.MAC || m.Image != s.Infohash.String() || counted[m.Address] {
			continue
		}
		counted[m.Address] = true
		others = append(others, boothost.Member{MAC: m.MAC, First: m.First})
	}
	turn := boothost.Rank(self, others)
	if self.First {
		turn = min(turn, boothost.Hosts-1)
	}
	if media := s.Media(); len(media) > 0 && media[0].Image != s.Infohash.String() {
		turn = max(turn, boothost.Hosts-1)
	}
	return turn
}
