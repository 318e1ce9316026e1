package boothost

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/cluster"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/event"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/netconnect"
	"viver.lan/internal/netguard"
)

// machineMark is how a process of this test learns that it is a machine: its MAC
// address, its IPv4 address and a member's gossip port.
const machineMark = "VIVER_TEST_MACHINE"

// TestMachine is the body of such a process; by itself it does nothing.
func TestMachine(t *testing.T) {
	words := strings.Fields(os.Getenv(machineMark))
	if len(words) == 0 {
		return
	}
	c := member(t, words[0], netip.MustParseAddr(words[1]), netip.MustParseAddrPort(words[2]))
	if err := c.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func member(t *testing.T, mac string, addr netip.Addr, seeds ...netip.AddrPort) *cluster.Cluster {
	t.Helper()
	own, err := ether.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.New(cluster.Config{Key: identitytest.Key(t, mac), Meta: cluster.Meta{Hostname: mac, MAC: own}, Bind: addr, Port: cluster.DefaultPort, Seeds: seeds})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// twins returns two machines whose hashes name the same first address.
func twins(pool netip.Prefix) (a, b ether.MAC) {
	seen := make(map[netip.Addr]ether.MAC)
	for n := uint32(0); ; n++ {
		m := ether.MAC{2, 0}
		binary.BigEndian.PutUint32(m[2:], n)
		addr := dhcp.Candidate(pool, m, 0)
		if other, ok := seen[addr]; ok {
			return other, m
		}
		seen[addr] = m
	}
}

// cableMark is how a process of this test learns that it is a machine that is
// switched on: an address and port that it talks to, which nobody answers. So it
// asks by ARP where that is, again and again, as members do that look for the
// other half.
const cableMark = "VIVER_TEST_CABLE"

// TestMachineOnCable is the body of such a process: it boots as uinit does, then
// guards its address as the block daemon does.
func TestMachineOnCable(t *testing.T) {
	other := os.Getenv(cableMark)
	if other == "" {
		return
	}
	n, err := netconnect.Connect(t.Context(), netconnect.Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	g := netguard.New(netguard.Config{Network: n, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	go func() {
		for ; ; time.Sleep(200 * time.Millisecond) {
			if conn, err := net.Dial("udp4", other); err == nil {
				_, _ = conn.Write([]byte("x"))
				conn.Close()
			}
		}
	}()
	_ = g.Run(t.Context())
}

// TestNetnsNextHostAgrees gives two machines with one hash their addresses,
// switches them and their boot host off, and lets them boot in the other order
// at a host that has never met them. It knows of them by the gossip.
//
//	[host 1] boot  ──┤
//	[host 2] boot2 ──┤ br0
//	[machines] pc ───┤
func TestNetnsNextHostAgrees(t *testing.T) {
	if !inNetns(t) {
		return
	}
	const secondIP, secondMAC = "10.77.3.10", "52:54:00:ff:00:02"
	b := newBenchOn(t, func(b *bench) {
		b.run("ip", "link", "add", "br0", "type", "bridge")
		b.run("ip", "link", "set", "br0", "up")
		for i, end := range []string{"boot", "boot2", "pc"} {
			port := "port" + strconv.Itoa(i)
			b.run("ip", "link", "add", end, "address", []string{hostMAC, secondMAC, clientMAC}[i], "type", "veth", "peer", "name", port)
			b.run("ip", "link", "set", port, "master", "br0", "up")
		}
		b.run("ip", "link", "set", "pc", "netns", client)
		b.run("ip", "addr", "add", secondIP+"/16", "dev", "boot2")
		b.run("ip", "link", "set", "boot2", "up")
	}, func(c *Config) { c.ProbeAddress = onLink(c.Interface) })
	table, turn := b.addHost("boot2", netip.MustParsePrefix(secondIP+"/16"))
	members := member(t, secondMAC, netip.MustParseAddr(secondIP))
	ended := make(chan struct{})
	ctx, stop := context.WithCancel(context.Background())
	go func() { _ = members.Run(ctx); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })

	pool := netip.MustParsePrefix("10.77.0.0/16")
	one, two := twins(pool)
	before := map[ether.MAC]netip.Addr{one: b.obtain(one), two: b.obtain(two)}
	if before[one] != dhcp.Candidate(pool, one, 0) || before[two] != dhcp.Candidate(pool, two, 1) {
		t.Fatalf("%s and %s live at %v", one, two, before)
	}
	var off []func()
	for m, addr := range before {
		off = append(off, b.machine(m, addr, secondIP))
	}
	lives := func() map[ether.MAC]netip.Addr {
		heard := make(map[ether.MAC]netip.Addr)
		for _, m := range members.Members() {
			if mac := m.Meta.MAC; mac != (ether.MAC{}) {
				heard[mac] = m.Addr.Addr()
			}
		}
		return heard
	}
	b.eventually("the second host to hear of both", func() bool { return len(lives()) == 3 })
	for _, f := range off {
		f()
	}
	b.run("ip", "link", "set", "port0", "down")
	turn.Store(0)
	table.AddHints(lives())
	for _, m := range []ether.MAC{two, one} {
		if got := b.obtain(m); got != before[m] {
			t.Errorf("%s lived at %s, the next host gives it %s", m, before[m], got)
		}
	}
}

func onLink(iface net.Interface) func(context.Context, netip.Addr) (ether.MAC, bool, error) {
	link := bootnet.Card{Name: iface.Name, Index: iface.Index, MAC: ether.MAC(iface.HardwareAddr)}
	return func(ctx context.Context, addr netip.Addr) (ether.MAC, bool, error) {
		return bootnet.InUse(ctx, link, addr)
	}
}

// addHost starts another boot host, which is silent until it gets its turn.
func (b *bench) addHost(name string, address netip.Prefix) (table *dhcp.Leases, turn *atomic.Int32) {
	b.t.Helper()
	iface, err := net.InterfaceByName(name)
	if err != nil {
		b.t.Fatal(err)
	}
	table, turn = dhcp.NewLeases(address.Masked(), time.Now, address.Addr()), new(atomic.Int32)
	turn.Store(Hosts)
	cfg := testConfig(b.t)
	cfg.Interface, cfg.Address, cfg.Table, cfg.ProbeAddress = *iface, address, table, onLink(*iface)
	cfg.Rank = func() int { return int(turn.Load()) }
	events, sink := io.Pipe()
	cfg.Events = event.NewLog("second", func() time.Duration { return 0 }, sink)
	b.start(newHost(b.t, cfg), events)
	return table, turn
}

// obtain gets a machine an address as the initramfs does.
func (b *bench) obtain(m ether.MAC) (addr netip.Addr) {
	b.t.Helper()
	class := dhcpv4.WithOption(dhcpv4.OptClassIdentifier(dhcp.NodeClass + " test"))
	b.speak(func(ask func(p *dhcpv4.DHCPv4, to string), answer func() *dhcpv4.DHCPv4) {
		discover, err := dhcpv4.NewDiscovery(net.HardwareAddr(m[:]), class)
		if err != nil {
			b.t.Fatal(err)
		}
		ask(discover, everyone)
		request, err := dhcpv4.NewRequestFromOffer(answer(), class)
		if err != nil {
			b.t.Fatal(err)
		}
		ask(request, everyone)
		ack := answer()
		if ack.MessageType() != dhcpv4.MessageTypeAck || ack.ClientHWAddr.String() != m.String() {
			b.t.Fatalf("%s: %s", m, ack.Summary())
		}
		addr, _ = netip.AddrFromSlice(ack.YourIPAddr.To4())
	})
	return addr
}

// machine runs a machine that has booted, until off is called.
func (b *bench) machine(m ether.MAC, addr netip.Addr, seed string) (off func()) {
	b.t.Helper()
	b.at("ip", "addr", "add", addr.String()+"/16", "dev", "pc")
	cmd := exec.Command("nsenter", in(client, os.Args[0], "-test.run=^TestMachine$")...)
	cmd.Env = append(os.Environ(), machineMark+"="+m.String()+" "+addr.String()+" "+netip.AddrPortFrom(netip.MustParseAddr(seed), cluster.DefaultPort).String())
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	off = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		b.at("ip", "addr", "flush", "to", addr.String(), "dev", "pc")
	}
	return off
}

// TestNetnsHealedPartitionSettles has two boot hosts, in the halves of a divided
// network, give one address to two machines with one hash. When the halves are
// one again, one machine moves.
//
//	[host 1] boot  ──┤ br0 ┼ br1 ├── boot2 [host 2]
//	[one] pc ────────┤     ┼     ├────── pc2 [two]
func TestNetnsHealedPartitionSettles(t *testing.T) {
	if !inNetns(t) {
		return
	}
	const secondIP, secondMAC = "10.77.3.10", "52:54:00:ff:00:02"
	pool := netip.MustParsePrefix("10.77.0.0/16")
	one, two := twins(pool)
	shared := dhcp.Candidate(pool, one, 0).String()
	const other = "other" // the namespace of the machine in the second half
	b := newBenchOn(t, func(b *bench) {
		b.namespace(other)
		for i, half := range []struct{ host, mac, pc, machine string }{{"boot", hostMAC, "pc", one.String()}, {"boot2", secondMAC, "pc2", two.String()}} {
			bridge := "br" + strconv.Itoa(i)
			b.run("ip", "link", "add", bridge, "type", "bridge")
			b.run("ip", "link", "set", bridge, "up")
			b.run("ip", "link", "add", half.host, "address", half.mac, "type", "veth", "peer", "name", half.host+"-port")
			b.run("ip", "link", "add", half.pc, "address", half.machine, "type", "veth", "peer", "name", half.pc+"-port")
			b.run("ip", "link", "set", half.host+"-port", "master", bridge, "up")
			b.run("ip", "link", "set", half.pc+"-port", "master", bridge, "up")
		}
		b.run("ip", "link", "add", "left", "type", "veth", "peer", "name", "right")
		b.run("ip", "link", "set", "left", "master", "br0", "up")
		b.run("ip", "link", "set", "right", "master", "br1")
		b.run("ip", "link", "set", "pc", "netns", client)
		b.run("ip", "link", "set", "pc2", "netns", other)
		b.run("ip", "addr", "add", secondIP+"/16", "dev", "boot2")
		b.run("ip", "link", "set", "boot2", "up")
	}, func(c *Config) { c.ProbeAddress = onLink(c.Interface) })
	_, turn := b.addHost("boot2", netip.MustParsePrefix(secondIP+"/16"))
	turn.Store(0)
	b.boots(client)
	b.boots(other)
	b.eventually("both to have one address", func() bool { return b.address(client) == shared && b.address(other) == shared })
	turn.Store(1) // as each works it out when the members have met again
	b.run("ip", "link", "set", "right", "up")
	b.eventually("one of them to move", func() bool {
		first, second := b.address(client), b.address(other)
		return first != second && first != "" && second != ""
	})
	t.Logf("both had %s, now they have %s and %s", shared, b.address(client), b.address(other))
}

// boots switches a machine on in a namespace, until the test ends.
func (b *bench) boots(namespace string) {
	b.t.Helper()
	cmd := exec.Command("nsenter", in(namespace, os.Args[0], "-test.run=^TestMachineOnCable$")...)
	cmd.Env = append(os.Environ(), cableMark+"=10.77.99.99:9")
	cmd.Stderr = b.t.Output()
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

// address is the one that a machine has, "" while it has none or two.
func (b *bench) address(namespace string) string {
	b.t.Helper()
	var found []string
	for _, word := range strings.Fields(b.run("ip", "-n", namespace, "-4", "-o", "addr", "show", "scope", "global")) {
		if p, err := netip.ParsePrefix(word); err == nil {
			found = append(found, p.Addr().String())
		}
	}
	if len(found) != 1 {
		return ""
	}
	return found[0]
}
