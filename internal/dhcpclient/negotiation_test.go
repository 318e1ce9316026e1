package dhcpclient

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
	"viver.lan/internal/netbed/lantest"
)

// table plays DHCP servers against a negotiation, in a time of its own.
type table struct {
	t   *testing.T
	n   *negotiation
	now time.Duration
	// pending are answers on their way.
	pending []pending
	asked   []request
}

type pending struct {
	at time.Duration
	r  reply
}

// server answers a question, or not.
type server func(q request, now time.Duration) []pending

// serverAt answers everything with what edit makes of an ordinary answer.
func serverAt(address string, delay time.Duration, edit func(q request, m *dhcpv4.DHCPv4) bool) server {
	return func(q request, now time.Duration) []pending {
		kind := dhcpv4.MessageTypeOffer
		if q.message.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
			if q.message.ServerIdentifier().String() != address {
				return nil
			}
		} else if q.message.MessageType() != dhcpv4.MessageTypeDiscover {
			return nil
		}
		mac := ether.MAC(q.message.ClientHWAddr)
		m := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootReply, TransactionID: q.message.TransactionID, ClientHWAddr: mac[:],
			YourIPAddr: net.IPv4(192, 168, 5, 20), ServerIPAddr: net.IPv4zero, Options: dhcpv4.OptionsFromList(
				dhcpv4.OptMessageType(kind), dhcpv4.OptSubnetMask(net.CIDRMask(24, 32)),
				dhcpv4.OptServerIdentifier(net.ParseIP(address)), dhcpv4.OptIPAddressLeaseTime(time.Hour))}
		if edit != nil && !edit(q, m) {
			return nil
		}
		from := netip.MustParseAddr(address)
		return []pending{{now + delay, reply{message: m, source: from, from: ether.MAC{2, 0, 0, 0, 0, from.As4()[3]}}}}
	}
}

func isRequest(q request) bool { return q.message.MessageType() == dhcpv4.MessageTypeRequest }

// until runs the negotiation until it has a lease or the time is over.
func (b *table) until(limit time.Duration, servers ...server) (bootnet.Lease, bool) {
	b.t.Helper()
	for {
		q, ok, err := b.n.next(b.now)
		if err != nil {
			b.t.Fatal(err)
		}
		if ok {
			b.asked = append(b.asked, q)
			for _, s := range servers {
				b.pending = append(b.pending, s(q, b.now)...)
			}
		}
		first := -1
		for i, p := range b.pending {
			if p.at <= b.n.due && (first < 0 || p.at < b.pending[first].at) {
				first = i
			}
		}
		if first < 0 {
			if b.now = b.n.due; b.now > limit {
				return bootnet.Lease{}, false
			}
			continue
		}
		p := b.pending[first]
		b.pending = append(b.pending[:first], b.pending[first+1:]...)
		b.now = max(b.now, p.at)
		if l, given := b.n.receive(p.r, b.now); given {
			return l, true
		}
	}
}

func newTable(t *testing.T, log *slog.Logger) *table {
	return &table{t: t, n: newNegotiation(testMAC(), netip.Addr{}, log, 0)}
}

func TestNegotiation(t *testing.T) {
	const good, bad = "192.168.5.1", "192.168.5.9"
	nak := func(q request, m *dhcpv4.DHCPv4) bool {
		if isRequest(q) {
			m.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeNak))
			m.UpdateOption(dhcpv4.OptMessage("not you"))
		}
		return true
	}
	mute := func(q request, m *dhcpv4.DHCPv4) bool { return !isRequest(q) }
	patient := func(q request, _ *dhcpv4.DHCPv4) bool { return q.message.NumSeconds >= 3 }
	naks := 0
	for _, c := range []struct {
		name    string
		servers []server
		from    string        // who gives the lease, "" for nobody
		within  time.Duration // of virtual time
		said    string
	}{
		{"an honest one", []server{serverAt(good, time.Millisecond, nil)}, good, time.Second, ""},
		{"answers after 7 s each", []server{serverAt(good, 7*time.Second, nil)}, good, 16 * time.Second, ""},
		{"answers after 11 s", []server{serverAt(good, 11*time.Second, nil)}, good, 25 * time.Second, ""},
		{"answers after 15 s", []server{serverAt(good, 15*time.Second, nil)}, good, 40 * time.Second, ""},
		{"waits for three seconds of secs", []server{serverAt(good, 0, patient)}, good, 8 * time.Second, ""},
		{"refuses all", []server{serverAt(bad, 0, nak)}, "", time.Minute, "not you"},
		{"never gives", []server{serverAt(bad, 0, mute)}, "", time.Minute, "does not give it"},
		{"refuses, beside a good one", []server{serverAt(bad, 0, nak), serverAt(good, 3500*time.Millisecond, nil)}, good, 10 * time.Second, "refused the address"},
		{"never gives, beside a good one", []server{serverAt(bad, 0, mute), serverAt(good, 3500*time.Millisecond, nil)}, good, 13 * time.Second, "does not give it"},
		{"refuses three times", []server{serverAt(good, 0, func(q request, m *dhcpv4.DHCPv4) bool {
			if isRequest(q) && naks < 3 {
				naks++
				return nak(q, m)
			}
			return true
		})}, good, 7 * time.Second, "refused the address"},
		{"gives no address, beside a good one", []server{serverAt(bad, 0, func(_ request, m *dhcpv4.DHCPv4) bool {
			m.YourIPAddr = net.IPv4zero
			return true
		}), serverAt(good, time.Second, nil)}, good, 3 * time.Second, ""},
		{"names no server", []server{serverAt(good, 0, func(_ request, m *dhcpv4.DHCPv4) bool {
			m.Options.Del(dhcpv4.OptionServerIdentifier)
			return true
		})}, good, time.Second, ""},
		{"a stranger refuses what another gives", []server{func(q request, now time.Duration) []pending {
			if !isRequest(q) {
				return nil
			}
			q.message.UpdateOption(dhcpv4.OptServerIdentifier(net.ParseIP(bad))) // heard, though not meant
			answers := serverAt(bad, 0, nak)(q, now)
			q.message.UpdateOption(dhcpv4.OptServerIdentifier(net.ParseIP(good)))
			return answers
		}, serverAt(good, time.Millisecond, nil)}, good, 2 * time.Second, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			said, log := lantest.Journal(t)
			b := newTable(t, log)
			lease, given := b.until(c.within, c.servers...)
			if given != (c.from != "") || given && lease.Server.String() != c.from {
				t.Errorf("given %v after %s: %+v, want it from %q; reason: %v", given, b.now, lease, c.from, b.n.err)
			}
			if c.said != "" && (!said.Says(c.said) || !said.Says(bad) && c.name != "refuses three times") {
				t.Errorf("%q is not said of %s", c.said, bad)
			}
			if given && b.now > c.within {
				t.Errorf("after %s, want within %s", b.now, c.within)
			}
			last := uint16(0)
			for _, q := range b.asked {
				if q.message.NumSeconds < last || q.message.TransactionID != b.n.xid {
					t.Errorf("secs went from %d to %d, transaction %s", last, q.message.NumSeconds, q.message.TransactionID)
				}
				last = q.message.NumSeconds
			}
		})
	}
}

// A server that gives nothing is not asked more and more often, and costs few
// lines in the log.
func TestNegotiationBacksOff(t *testing.T) {
	said, log := lantest.Journal(t)
	b := newTable(t, log)
	b.until(10*time.Minute, serverAt("192.168.5.9", 0, func(q request, m *dhcpv4.DHCPv4) bool {
		if isRequest(q) {
			m.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeNak))
		}
		return true
	}))
	if len(b.asked) > 200 {
		t.Errorf("%d messages in ten minutes", len(b.asked))
	}
	if lines := strings.Count(said.String(), "level=WARN"); lines != 1 {
		t.Errorf("%d warnings", lines)
	}
	if !errors.Is(b.n.err, ErrRefused) {
		t.Errorf("reason: %v", b.n.err)
	}
}

// Each address that turns out to be in use is declined, and never requested
// again; the server stays as good as another.
func TestNegotiationDeclines(t *testing.T) {
	said, log := lantest.Journal(t)
	b := newTable(t, log)
	next := byte(20)
	s := serverAt("192.168.5.1", 0, func(q request, m *dhcpv4.DHCPv4) bool {
		m.YourIPAddr = net.IPv4(192, 168, 5, next)
		return true
	})
	lease, given := b.until(time.Second, s)
	if !given {
		t.Fatal("no lease")
	}
	used := lease.Address.Addr()
	q, err := b.n.decline(lease, ether.MAC{2, 0, 0, 0, 0, 7}, b.now)
	m := q.message
	if err != nil || m.MessageType() != dhcpv4.MessageTypeDecline || bootnet.Addr(m.RequestedIPAddress()) != used ||
		!m.ServerIdentifier().Equal(net.IPv4(192, 168, 5, 1)) || !m.ClientIPAddr.IsUnspecified() || q.to.String() != "255.255.255.255" {
		t.Errorf("DECLINE: %s, %v", m.Summary(), err)
	}
	if lease, given := b.until(b.now+30*time.Second, s); given {
		t.Errorf("%s was taken again", lease.Address)
	}
	if !said.Says("02:00:00:00:00:07") || !said.Says("again") {
		t.Error("who has the address is not said")
	}
	next = 21
	if lease, given = b.until(b.now+20*time.Second, s); !given || lease.Address.Addr() == used {
		t.Errorf("then %v %+v", given, lease)
	}
}

// A machine that claims whatever is given to us keeps us out for a while, and
// not for good.
func TestNegotiationIgnoresWhoClaimsAll(t *testing.T) {
	_, log := lantest.Journal(t)
	b := newTable(t, log)
	next := byte(20)
	s := serverAt("192.168.5.1", 0, func(q request, m *dhcpv4.DHCPv4) bool {
		m.YourIPAddr = net.IPv4(192, 168, 5, next)
		return true
	})
	liar, other := ether.MAC{2, 0, 0, 0, 0, 7}, ether.MAC{2, 0, 0, 0, 0, 8}
	for claims := 1; ; claims++ {
		lease, given := b.until(b.now+time.Minute, s)
		if !given {
			t.Fatalf("no lease after %d claims", claims)
		}
		by := liar
		if claims == 1 {
			by = other
		}
		if _, err := b.n.decline(lease, by, b.now); err != nil {
			t.Fatal(err)
		}
		if next++; b.n.claimsTooMuch(by) {
			if claims != 1+maxClaims || len(b.n.inUse) != 1 {
				t.Errorf("after %d claims, %v remain", claims, b.n.inUse)
			}
			break
		}
	}
	if b.now > 50*time.Second {
		t.Errorf("it took %s: the stage has a minute", b.now)
	}
}
