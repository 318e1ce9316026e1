package firewall

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"viver.lan/internal/netbed"
	"viver.lan/internal/netbed/lantest"
)

// inNetns returns true in the process that has the firewall: it is 192.168.50.2 on the
// network of package lantest, and the other end 192.168.50.1.
func inNetns(t *testing.T, tools ...string) bool {
	t.Helper()
	if !lantest.Enter(t, tools...) {
		return false
	}
	sh(t, "ip link set lo up; ip link set boot0 up; ip addr add 192.168.50.2/24 dev boot0")
	return true
}

func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// eventually waits for as long as the keeper may need on a busy machine.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			rules, _ := exec.Command("sh", "-c", "nft list ruleset; iptables-legacy -S").CombinedOutput()
			t.Fatalf("never: %s\n%s", what, rules)
		}
	}
}

const (
	here  = "192.168.50.2"
	there = "192.168.50.1"
	swarm = 6881
	other = 2222 // a port that is not VIVER's
)

// listen answers TCP connections and datagrams at a port of this machine's, and
// connections at one of the other machine's.
func listen(t *testing.T) {
	t.Helper()
	serve := func(l net.Listener) {
		t.Cleanup(func() { l.Close() })
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); conn.Close() }()
		}
	}
	for _, port := range []int{swarm, other} {
		l, err := net.Listen("tcp4", fmt.Sprintf("%s:%d", here, port))
		if err != nil {
			t.Fatal(err)
		}
		go serve(l)
		p, err := net.ListenPacket("udp4", fmt.Sprintf("%s:%d", here, port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		go func() {
			b := make([]byte, 16)
			for {
				n, from, err := p.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = p.WriteTo(b[:n], from) // it is asked again
			}
		}()
		err = netbed.In("lan", func() error {
			l, err := net.Listen("tcp4", fmt.Sprintf("%s:%d", there, port))
			if err == nil {
				go serve(l)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// echoes reports whether what is sent comes back.
func echoes(network, host string, port int) bool {
	conn, err := net.DialTimeout(network, fmt.Sprintf("%s:%d", host, port), 300*time.Millisecond)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(300 * time.Millisecond))
	b := []byte("?")
	if _, err := conn.Write(b); err != nil {
		return false
	}
	_, err = io.ReadFull(conn, b)
	return err == nil
}

// from outside: TCP and UDP to a port here; and from here to one there.
func open(t *testing.T, port int) (tcp, udp, out bool) {
	_ = netbed.In("lan", func() error {
		tcp, udp = echoes("tcp4", here, port), echoes("udp4", here, port)
		return nil
	})
	return tcp, udp, echoes("tcp4", there, port)
}

// allOpen reports whether VIVER's port can be reached in each way.
func allOpen(t *testing.T) bool {
	tcp, udp, out := open(t, swarm)
	return tcp && udp && out
}

func keeper(t *testing.T) *Keeper {
	t.Helper()
	return keeperWith(t, nil)
}

// keeperWith runs a keeper of VIVER's ports, and more.
func keeperWith(t *testing.T, more func() Ports) *Keeper {
	k := New(Config{Network: netip.MustParsePrefix("192.168.50.0/24"), Ports: Ports{TCP: []uint16{swarm, 7946}, UDP: []uint16{swarm, 7946, 67}},
		More: more, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return k
}

// filters are firewalls that let in what answers, and drop the rest.
var filters = []struct {
	name, tool, load, reload, show string
	chains                         []string
}{
	{"nftables", "nft", `nft -f - <<'E'
		flush ruleset
		table inet filter {
			chain input { type filter hook input priority filter; policy drop; iif lo accept; ct state established,related accept; tcp dport 22 accept; }
			chain output { type filter hook output priority filter; policy drop; oif lo accept; ct state established accept; }
		}
E`, "", "nft list ruleset", []string{"inet filter input", "inet filter output"}},
	{"nftables, no table of connections, two hooks, another base chain after", "nft", `nft -f - <<'E'
		flush ruleset
		table ip a { chain pre { type filter hook prerouting priority raw; policy drop; iif lo accept; tcp dport 22 accept; }; }
		table inet b {
			chain late { type filter hook input priority 100; policy accept; jump sub; }
			chain sub { iif lo accept; reject; }
			chain out { type route hook output priority mangle; policy accept; oif lo accept; tcp dport 22 accept; drop; }
		}
E`, "", "nft list ruleset", []string{"ip a pre", "inet b late", "inet b out"}},
	{"nftables at the card", "nft", `nft -f - <<'E'
		flush ruleset
		table netdev guard { chain in { type filter hook ingress device boot0 priority 0; policy drop; arp operation 1-2 accept; }; }
E`, "", "nft list ruleset", []string{"netdev guard in"}},
	{"iptables-nft", "iptables-nft", `iptables-nft -P INPUT DROP; iptables-nft -F; iptables-nft -A INPUT -i lo -j ACCEPT; iptables-nft -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
		iptables-nft -P OUTPUT DROP; iptables-nft -A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
		iptables-nft -t mangle -A PREROUTING -p tcp --dport 6881 -j DROP`,
		"", "iptables-nft -S; iptables-nft -t mangle -S", []string{"ip filter INPUT", "ip filter OUTPUT", "ip mangle PREROUTING"}},
}

// legacyFilters are the same for ip_tables.
const legacyFilter = `iptables-legacy -F; iptables-legacy -P INPUT DROP; iptables-legacy -P OUTPUT DROP
	iptables-legacy -N mine || iptables-legacy -F mine
	iptables-legacy -A mine -p tcp --dport 22 -j ACCEPT
	iptables-legacy -A INPUT -i lo -j ACCEPT
	iptables-legacy -A INPUT -p tcp --dport 6881
	iptables-legacy -A INPUT -g mine
	iptables-legacy -A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT`

func TestNetnsPortsStayOpenInOldTables(t *testing.T) {
	if !inNetns(t, "iptables-legacy", "iptables-legacy-save", "iptables-legacy-restore") {
		return
	}
	if out, err := exec.Command("iptables-legacy", "-S").CombinedOutput(); err != nil {
		t.Skipf("this kernel has no ip_tables: %s", out)
	}
	listen(t)
	k := keeper(t)
	sh(t, legacyFilter)
	opened := func() bool { return allOpen(t) }
	eventually(t, "VIVER's port is open", opened)
	if tcp, udp, _ := open(t, other); tcp || udp {
		t.Errorf("another port is open: TCP %v, UDP %v", tcp, udp)
	}
	eventually(t, "it is reported where", func() bool {
		return slices.Equal(k.Report().Open, []string{"iptables-legacy filter INPUT", "iptables-legacy filter OUTPUT"})
	})
	rules := sh(t, "iptables-legacy -S")
	t.Log(rules)
	for _, want := range []string{"-A INPUT -j viver-in\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 6881\n-A INPUT -g mine", "-A mine -p tcp -m tcp --dport 22 -j ACCEPT",
		"-A viver-in -s 192.168.50.0/24 -p tcp -m tcp --sport 6881 ! --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT"} {
		if !strings.Contains(rules, want) {
			t.Errorf("not as the distribution's own program writes it: %q", want)
		}
	}
	// Counters of others stay.
	sh(t, "iptables-legacy -D INPUT -j viver-in")
	counted := func() string { return sh(t, "iptables-legacy -nvxL INPUT | grep mine") }
	_ = netbed.In("lan", func() error { echoes("tcp4", here, other); return nil })
	before := strings.Fields(counted())[0]
	eventually(t, "open when the rule is taken away", opened)
	if after := strings.Fields(counted())[0]; before == "0" || after < before && len(after) <= len(before) {
		t.Errorf("a rule of the distribution had seen %s packets, now %s", before, after)
	}
	sh(t, "iptables-legacy-save > /run/saved; iptables-legacy-restore < /run/saved; iptables-legacy -I INPUT -p tcp -j DROP")
	eventually(t, "open after save and restore, and somebody else at the top", opened)
	if n := strings.Count(sh(t, "iptables-legacy -S INPUT"), "viver-in"); n != 1 {
		t.Errorf("%d rules of ours after save and restore", n)
	}
	sh(t, legacyFilter)
	eventually(t, "open after a reload", opened)
	sh(t, "iptables-legacy -P INPUT ACCEPT; iptables-legacy -P OUTPUT ACCEPT; iptables-legacy -F; iptables-legacy -X")
	eventually(t, "nothing is kept open where nothing drops", func() bool { return len(k.Report().Open) == 0 })
	if rules := sh(t, "iptables-legacy -S"); strings.Contains(rules, "viver") {
		t.Errorf("rules without a firewall:\n%s", rules)
	}
}

// closedTables makes tables that nobody else can change, as firewalld does.
func closedTables(t *testing.T, k *Keeper) {
	sh(t, "nft flush ruleset")
	owner := exec.Command("nft", "-i")
	rules, err := owner.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { rules.Close(); _ = owner.Wait() }()
	fmt.Fprintln(rules, "add table inet closed { flags owner; chain input { type filter hook input priority 0; policy drop; }; }")
	eventually(t, "it is said who has to open it", func() bool {
		p := k.Report().Problems
		return len(p) == 1 && strings.Contains(p[0], "inet closed input")
	})
	fmt.Fprintln(rules, "add chain inet closed filter_IN_policy_viver")
	eventually(t, "firewalld has been told", func() bool {
		return len(k.Report().Problems) == 0 && strings.Contains(fmt.Sprint(k.Report().Open), "firewalld's policy")
	})
}

// A port that is wanted for a while is open for that while, also when another takes its place.
func TestNetnsMorePorts(t *testing.T) {
	if !inNetns(t, "nft") {
		return
	}
	listen(t)
	var more atomic.Pointer[Ports]
	more.Store(&Ports{})
	keeperWith(t, func() Ports { return *more.Load() })
	sh(t, filters[0].load)
	eventually(t, "VIVER's port is open", func() bool { return allOpen(t) })
	is := func(wantTCP, wantUDP bool) func() bool {
		return func() bool { tcp, udp, _ := open(t, other); return tcp == wantTCP && udp == wantUDP && allOpen(t) }
	}
	if !is(false, false)() {
		t.Error("a port is open that nobody asked for")
	}
	for _, p := range []struct {
		Ports
		tcp, udp bool
	}{
		{Ports{TCP: []uint16{other}}, true, false},
		{Ports{TCP: []uint16{other + 1}}, false, false}, // as many rules as before
		{Ports{UDP: []uint16{other}}, false, true},
		{Ports{}, false, false},
	} {
		more.Store(&p.Ports)
		eventually(t, fmt.Sprintf("open for %+v", p), is(p.tcp, p.udp))
	}
}

func TestNetnsPortsStayOpen(t *testing.T) {
	if !inNetns(t, "nft", "iptables-nft", "iptables-nft-restore") {
		return
	}
	listen(t)
	opened := func() bool { return allOpen(t) }
	eventually(t, "the ports can be reached without a firewall", opened)
	k := keeper(t)
	for _, f := range filters {
		t.Run(f.name, func(t *testing.T) {
			sh(t, "nft flush ruleset")
			sh(t, f.load)
			eventually(t, "VIVER's port is open", opened)
			if tcp, udp, _ := open(t, other); tcp || udp {
				t.Errorf("another port is open: TCP %v, UDP %v", tcp, udp)
			}
			eventually(t, "it is reported where", func() bool {
				return slices.Equal(slices.Sorted(slices.Values(k.Report().Open)), slices.Sorted(slices.Values(f.chains)))
			})
			if p := k.Report().Problems; len(p) > 0 {
				t.Errorf("problems: %q", p)
			}
			before := sh(t, f.show)
			t.Log(before)
			sh(t, f.load) // the distribution loads its rules again
			eventually(t, "open after a reload", opened)
			if f.tool == "iptables-nft" { // its own tools read and write our rules
				sh(t, "iptables-nft-save > /run/saved; iptables-nft-restore < /run/saved")
				eventually(t, "open after save and restore", opened)
				if n := strings.Count(sh(t, "iptables-nft -S INPUT"), "viver-in"); n != 1 {
					t.Errorf("%d rules of ours after save and restore", n)
				}
				sh(t, "iptables-nft -I INPUT 1 -p tcp -j DROP")
				eventually(t, "open when somebody is first for a moment", opened)
			}
		})
	}
	t.Run("tables that belong to their maker", func(t *testing.T) { closedTables(t, k) })
	sh(t, "nft flush ruleset")
	eventually(t, "nothing is kept open where nothing drops", func() bool { return len(k.Report().Open) == 0 })
	if rules := sh(t, "nft list ruleset"); strings.Contains(rules, "viver") {
		t.Errorf("rules without a firewall:\n%s", rules)
	}
}
