package dhcp

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/ether"
)

var (
	foreignRouter = netip.MustParseAddr("192.168.1.1")
	foreignHost   = netip.MustParseAddr("10.77.0.9")
	foreignOurs   = ether.MAC{2, 0, 0, 0, 0, 9}
	foreignOther  = ether.MAC{2, 0, 0, 0, 0, 1}
)

// overheard is a packet between a client and the router.
func overheard(t *testing.T, op dhcpv4.OpcodeType, kind dhcpv4.MessageType, more ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	p, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(foreignOther[:]), dhcpv4.WithMessageType(kind)}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	p.OpCode = op
	return p
}

func TestObservations(t *testing.T) {
	const ask, answer = dhcpv4.OpcodeBootRequest, dhcpv4.OpcodeBootReply
	named := dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP(foreignRouter.AsSlice())))
	address := dhcpv4.WithYourIP(net.IPv4(192, 168, 1, 100))
	program := dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient"))
	everyone, nobody := netip.MustParseAddr("255.255.255.255"), netip.IPv4Unspecified()
	for _, c := range []struct {
		name     string
		packet   *dhcpv4.DHCPv4
		from, to netip.Addr
		sign     bool
	}{
		{"OFFER", overheard(t, answer, dhcpv4.MessageTypeOffer, named, address), foreignRouter, everyone, true},
		{"OFFER that names no server", overheard(t, answer, dhcpv4.MessageTypeOffer, address), foreignRouter, everyone, true},
		{"OFFER of a boot program only", overheard(t, answer, dhcpv4.MessageTypeOffer, named, program), foreignRouter, everyone, false},
		{"ACK", overheard(t, answer, dhcpv4.MessageTypeAck, named, address), foreignRouter, everyone, true},
		{"ACK to an INFORM", overheard(t, answer, dhcpv4.MessageTypeAck, named), foreignRouter, everyone, true},
		{"ACK of a boot server", overheard(t, answer, dhcpv4.MessageTypeAck, named, program), foreignRouter, everyone, false},
		{"NAK", overheard(t, answer, dhcpv4.MessageTypeNak, named), foreignRouter, everyone, true},
		{"DISCOVER", overheard(t, ask, dhcpv4.MessageTypeDiscover), nobody, everyone, false},
		{"REQUEST that names it", overheard(t, ask, dhcpv4.MessageTypeRequest, named), nobody, everyone, true},
		{"REQUEST to all", overheard(t, ask, dhcpv4.MessageTypeRequest), nobody, everyone, false},
		{"renewal", overheard(t, ask, dhcpv4.MessageTypeRequest), foreignHost, foreignRouter, true},
		{"INFORM to all", overheard(t, ask, dhcpv4.MessageTypeInform), foreignHost, everyone, false},
		{"INFORM", overheard(t, ask, dhcpv4.MessageTypeInform), foreignHost, foreignRouter, true},
		{"DECLINE", overheard(t, ask, dhcpv4.MessageTypeDecline, named), nobody, everyone, true},
		{"RELEASE", overheard(t, ask, dhcpv4.MessageTypeRelease, named), foreignHost, foreignRouter, true},
	} {
		s, ok := ObservationOf(c.packet, c.from, c.to)
		if ok != c.sign || ok && (s.Server != foreignRouter || s.Viver || s.To != foreignOther || s.How == "") {
			t.Errorf("%s: %+v, %v, want %v", c.name, s, ok, c.sign)
		}
	}
	mark := dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(OptionMark), []byte(Mark)))
	if s, ok := ObservationOf(overheard(t, answer, dhcpv4.MessageTypeOffer, named, program, mark), foreignRouter, everyone); !ok || !s.Viver {
		t.Errorf("a boot host's answer: %+v, %v", s, ok)
	}
}

// account is one whose clock stands, and a question that nobody answers.
func account() (f *Foreign, wait func(time.Duration) (gone int)) {
	now := time.Now()
	f = NewForeign(foreignHost, foreignOurs, func() time.Time { return now })
	return f, func(d time.Duration) int {
		gone := 0
		for end := now.Add(d); now.Before(end); {
			now = now.Add(15 * time.Second)
			for _, server := range f.Hidden() {
				f.Found(server, server == foreignRouter)
			}
			gone += len(f.Asked())
		}
		return gone
	}
}

func TestForeignIsForgottenWhenGone(t *testing.T) {
	f, wait := account()
	if f.Present() || !f.Observe(Observation{Server: foreignRouter, Spoken: true, To: foreignOurs}) || !f.Present() {
		t.Fatal("an offer to us is no news of a server")
	}
	if f.Observe(Observation{Server: foreignRouter, Spoken: true, To: foreignOther}) {
		t.Error("the second sign of a server is news")
	}
	if wait(45 * time.Second); !f.Present() {
		t.Error("a server is forgotten although it was silent for a moment only")
	}
	f.Observe(Observation{Server: foreignRouter, Spoken: true, To: foreignOther})
	if wait(45 * time.Second); !f.Present() {
		t.Error("a server is forgotten although it spoke")
	}
	if wait(30*time.Second) != 1 || f.Present() {
		t.Error("a server that answers nobody for over a minute is still there")
	}
}

// A server for registered machines only never answers a question of ours.
func TestForeignThatKnowsUsNot(t *testing.T) {
	f, wait := account()
	f.Observe(Observation{Server: foreignRouter, To: foreignOther})
	if wait(10 * time.Minute); !f.Present() {
		t.Error("it is forgotten although its machine is there")
	}
	if wait(time.Hour); f.Present() {
		t.Error("nobody has heard of it for an hour")
	}
	f.Observe(Observation{Server: netip.MustParseAddr("192.168.1.2"), To: foreignOther})
	if wait(90*time.Second) != 1 {
		t.Error("its machine is gone")
	}
}

func TestBootHostsAreNotForeign(t *testing.T) {
	f, wait := account()
	second := netip.MustParseAddr("10.77.0.8")
	f.Observe(Observation{Server: foreignHost, To: foreignOther})
	f.Observe(Observation{Server: second, Viver: true, Spoken: true, To: foreignOther})
	if f.Observe(Observation{Server: second, To: foreignOther}); f.Present() {
		t.Error("a boot host counts as foreign")
	}
	third := netip.MustParseAddr("10.77.0.7")
	f.Observe(Observation{Server: third, To: foreignOther})
	if !f.Present() {
		t.Fatal("a server that nobody knows is not one")
	}
	if f.Observe(Observation{Server: third, Viver: true, Spoken: true, To: foreignOurs}); f.Present() {
		t.Error("it has shown itself as a boot host")
	}
	wait(2 * time.Hour)
	if f.Observe(Observation{Server: second, To: foreignOther}); !f.Present() {
		t.Error("an address that a boot host had hours ago is for ever one")
	}
}

func TestForeignIsBounded(t *testing.T) {
	f, _ := account()
	for n := range 1000 {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})
		f.Observe(Observation{Server: addr, To: foreignOther})
		f.Observe(Observation{Server: addr.Next(), Viver: true, Spoken: true})
	}
	if len(f.servers) > maxForeign || len(f.ours) > maxForeign {
		t.Errorf("%d servers and %d boot hosts are remembered", len(f.servers), len(f.ours))
	}
}
