package agent

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"viver.lan/internal/boothost"
	"viver.lan/internal/bootorder"
	"viver.lan/internal/control"
	"viver.lan/internal/copies"
	"viver.lan/internal/manifest"
	"viver.lan/internal/notify"
)

// answerTime is how long a live machine on the same cable may take to answer.
const answerTime = 300 * time.Millisecond

// ranking knows this machine's rank among the boot hosts of its network.
type ranking struct {
	self   boothost.Member
	log    *slog.Logger
	help   *help
	status atomic.Pointer[control.Status] // the last one; nil before the first
	news   notify.Notifier                // that the rank may be another
	rank   atomic.Int32
	whole  atomic.Pointer[[]netip.AddrPort]
	note   string // of who else serves, which was logged last
	// since is when a machine with a medium began on a network that has a boot
	// host already; the zero time where it has none.
	since time.Time
}

// acquaintTime is how long such a machine leaves the first answer to others: by
// then it has heard which image they have.
const acquaintTime = 10 * time.Second

// forever is how long a rank stays that time alone does not change.
const forever = 365 * 24 * time.Hour

func newRanking(here place, log *slog.Logger) *ranking {
	boot := here.boot
	r := &ranking{self: boothost.Member{MAC: boot.MAC, First: boot.First}, log: log, help: newHelp(time.Now, log)}
	r.whole.Store(new([]netip.AddrPort))
	if boot.First && here.network.Lease.Viver {
		r.since = time.Now()
		r.rank.Store(boothost.Hosts - 1)
	}
	if !boot.First {
		r.rank.Store(boothost.Hosts) // until the block daemon has told who else is here
	}
	return r
}

func (r *ranking) current() int { return int(r.rank.Load()) }

// peers are the HTTP servers of the other nodes that hold the whole image.
func (r *ranking) peers() []netip.AddrPort { return *r.whole.Load() }

// await waits until this machine has a rank that serves, or none any more (false).
func (r *ranking) await(ctx context.Context, serving bool) error {
	news, stop := r.news.Watch()
	defer stop()
	for {
		left := r.decide()
		if (r.current() < boothost.Hosts) == serving {
			return nil
		}
		end := time.NewTimer(left)
		select {
		case <-ctx.Done():
			end.Stop()
			return ctx.Err()
		case <-news:
		case <-end.C:
		}
		end.Stop()
	}
}

// take uses what the block daemon says of the members and their pieces.
func (r *ranking) take(s *control.Status) {
	whole := wholePeers(r.self, s)
	r.whole.Store(&whole)
	if note := bootorder.Note(s); note != r.note {
		r.note = note
		if note != "" && r.self.First {
			r.log.Warn(note)
		}
	}
	r.status.Store(s)
	r.news.Notify()
}

// decide works out the rank, and returns how long it stays if nothing new is heard.
func (r *ranking) decide() (left time.Duration) {
	s := r.status.Load()
	if s == nil {
		return forever // as it was
	}
	rank, left := rankAmong(r.self, s), forever
	if s.OutOfReach == 0 {
		rank, left = r.help.rank(rank)
	}
	if early := acquaintTime - time.Since(r.since); !r.since.IsZero() && early > 0 {
		rank, left = max(rank, boothost.Hosts-1), min(left, early)
	}
	if old := r.rank.Swap(int32(rank)); int(old) != rank {
		r.log.Info("rank among the boot hosts", "rank", rank, "was", old, "of", boothost.Hosts)
	}
	return left
}

// wholePeers returns where the live nodes serve that hold the whole image. Machines
// that boot are sent there, so of those who only say so none is taken that proved no
// key, or was found out.
func wholePeers(self boothost.Member, s *control.Status) (out []netip.AddrPort) {
	has := make(map[netip.Addr]bool)
	if s.Offered() != s.Infohash && s.Published.Second != nil {
		for _, addr := range s.Published.Second.Whole {
			has[addr] = true
		}
	}
	for _, p := range s.Peers {
		if s.Offered() == s.Infohash && p.Ours && p.Proof != copies.Failed && p.Have == s.Transfer.Pieces && s.Transfer.Pieces > 0 {
			has[p.Address.Addr()] = true
		}
	}
	for _, m := range s.Members {
		if !isOtherHost(self, m) || !has[m.Address] {
			continue
		}
		delete(has, m.Address) // each address once
		out = append(out, netip.AddrPortFrom(m.Address, m.HTTPPort))
	}
	return out
}

// isOtherHost reports whether a member is another live machine, by its own name, that
// serves boot files: a volume on any machine does not.
func isOtherHost(self boothost.Member, m control.Member) bool {
	return m.State == control.Alive && m.NameState != control.Disputed && m.MAC != self.MAC && m.HTTPPort != 0
}

// reachable reports whether a server of this network takes connections.
func reachable(server netip.AddrPort) bool {
	conn, err := net.DialTimeout("tcp4", server.String(), answerTime)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// rankAmong works out the rank from the other hosts of the same network, which run its image
// or the one that is published for it. A machine that could not hand out the whole image leaves it to others. Where a
// machine has a medium with another image that comes before ours (see
// package bootorder), all with ours answer last, so that what a machine boots
// is no matter of chance. Likewise a machine that cannot offer the published image
// answers last, and those that do count only others that could.
//
// Keys and MAC addresses are easily made up, so all members of one address are one
// boot host, and the machine with the medium never leaves all to others.
func rankAmong(self boothost.Member, s *control.Status) int {
	if s.OutOfReach > 0 && !self.First {
		return boothost.Hosts
	}
	p := s.Published
	behind := p != nil && p.Here && s.Offered() != p.Image // the owner wants another image booted
	var others []boothost.Member
	counted := map[netip.Addr]bool{s.Address: true}
	for _, m := range s.Members {
		if !isOtherHost(self, m) || !s.Runs(m.Image) || counted[m.Address] {
			continue
		}
		if p != nil && p.Here && !behind && !keeps(m, p.Image) {
			continue
		}
		counted[m.Address] = true
		others = append(others, boothost.Member{MAC: m.MAC, First: m.First})
	}
	rank := boothost.Rank(self, others)
	if self.First {
		rank = min(rank, boothost.Hosts-1)
	}
	if media := bootorder.MembersWithMedium(s); behind || len(media) > 0 && !s.Runs(media[0].Image) {
		rank = max(rank, boothost.Hosts-1)
	}
	return rank
}

// keeps reports whether a member says that it has an image, be it the one that it runs.
func keeps(m control.Member, image manifest.Infohash) bool {
	_, ok := m.PeerFor(image)
	return ok
}
