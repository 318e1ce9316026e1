package netguard

import (
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/netbed/lantest"
)

// echo sends back what it is sent, at a port of the far end.
func echo(t *testing.T, at string) {
	t.Helper()
	var l net.Listener
	lantest.AtFarEnd(t, func() (err error) {
		l, err = net.Listen("tcp4", at)
		return err
	})
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn) }()
		}
	}()
}

// answers reports whether a byte comes back over a connection.
func answers(conn net.Conn) bool {
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	b := []byte{'?'}
	if _, err := conn.Write(b); err != nil {
		return false
	}
	_, err := io.ReadFull(conn, b)
	return err == nil
}

// The distribution builds the boot NIC into something else, or lays something over
// it. A connection of before goes on, a new one can be made, and others find the
// machine.
func TestNetnsGuardFollowsTheAddress(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	const far = "192.168.50.1:4000"
	lantest.DNSMasq(t, lantest.OnFar0, lantest.Range)
	echo(t, far)
	n := connected(t)
	moves := make(chan bootnet.Card, 16)
	g := guardWith(t, Config{Network: n, Moved: func(l bootnet.Card) { moves <- l }})
	address := g.leaseNow().Address
	before, err := net.DialTimeout("tcp4", far, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	listener, err := net.Listen("tcp4", netip.AddrPortFrom(address.Addr(), 4001).String())
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			if conn, err := listener.Accept(); err == nil {
				conn.Close()
			} else {
				return
			}
		}
	}()
	alive := func(t *testing.T) {
		t.Helper()
		lantest.Eventually(t, "a connection of before goes on", func() bool { return answers(before) })
		lantest.Eventually(t, "a new connection", func() bool {
			conn, err := net.DialTimeout("tcp4", far, time.Second)
			if err == nil {
				defer conn.Close()
			}
			return err == nil && answers(conn)
		})
		lantest.Eventually(t, "a connection from outside", func() (ok bool) {
			lantest.AtFarEnd(t, func() error {
				conn, err := net.DialTimeout("tcp4", listener.Addr().String(), time.Second)
				if ok = err == nil; ok {
					conn.Close()
				}
				return nil
			})
			return ok
		})
	}
	for _, c := range []struct {
		name, script, undo string
		holder             string // the device that has the address then
	}{
		{"bridge", "ip link add br0 type bridge; ip link set br0 up; ip link set boot0 master br0", "ip link set boot0 nomaster", "br0"},
		{"bridge, address flushed", "ip link set boot0 master br0; ip addr flush dev boot0", "ip link del br0", "br0"},
		{"bridge, address moved by hand", "ip link add br1 address 52:54:00:00:00:77 type bridge; ip addr add " + address.String() + " dev br1; ip addr flush dev boot0; ip link set boot0 master br1; ip link set br1 up", "ip link del br1", "br1"},
		{"macvlan beside it", "ip link add mv0 link boot0 type macvlan mode bridge; ip link set mv0 up; ip addr add 192.168.50.9/24 dev mv0", "ip link del mv0", "boot0"},
		{"macvlan with its address", "ip link add mv0 link boot0 type macvlan mode bridge; ip link set mv0 up; ip addr add " + address.String() + " dev mv0; ip addr del " + address.String() + " dev boot0", "ip link del mv0", ""},
		{"switched off", "ip link set boot0 down", "", "boot0"},
		{"neighbours flushed", "ip neigh flush dev boot0", "", "boot0"},
		{"doubled on another card", "ip link set boot1 up; ip addr add " + address.String() + " dev boot1; ip route del 192.168.50.0/24 dev boot0", "ip addr flush dev boot1", "boot0"},
		{"full tunnel", "ip link add vpn0 type veth peer name vpn1; ip link set vpn0 up; ip link set vpn1 up; ip addr add 10.8.0.2/24 dev vpn0; ip route add 0.0.0.0/1 dev vpn0; ip route add 128.0.0.0/1 dev vpn0; ip route replace default dev vpn0", "", "boot0"},
		{"routes into the network", "ip route add 192.168.50.0/25 dev vpn0; ip route add 192.168.50.128/25 dev vpn0", "ip link del vpn0", "boot0"},
		{"rules", "ip rule add pref 100 from all lookup 51820; ip route add default dev lo table 51820", "ip rule del pref 100", "boot0"},
		{"rules cleared away", "ip rule flush; ip rule add pref 32766 lookup main; ip rule add pref 100 lookup 51820", "ip rule del pref 100", "boot0"},
		{"bond", "ip link add bond0 type bond mode active-backup; ip link set boot0 down; ip link set boot0 master bond0; ip link set bond0 up", "ip link set boot0 nomaster; ip link del bond0", "bond0"},
		{"team", "ip link add team0 type team; ip link set boot0 down; ip link set boot0 master team0; ip link set team0 up", "ip link set boot0 nomaster; ip link del team0", "team0"},
		{"VRF", "ip link add vrf0 type vrf table 10; ip link set vrf0 up; ip link set boot0 master vrf0", "ip link set boot0 nomaster; ip link del vrf0", "boot0"},
		{"renamed", "ip link set boot0 down; ip link set boot0 name enp0s3", "", "enp0s3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if out, err := exec.Command("sh", "-ec", strings.ReplaceAll(c.script, "; ", "\n")).CombinedOutput(); err != nil {
				if strings.Contains(string(out), "Unknown device type") {
					t.Logf("this kernel has none (TestDistribution has a bond and a VRF): %s", out)
					return
				}
				t.Fatalf("%s: %v\n%s", c.script, err, out)
			}
			holder := func() string { device, _ := g.addressHolder(); return device.Name }
			began := time.Now()
			alive(t)
			t.Logf("alive after %s", time.Since(began))
			lantest.Eventually(t, "the address where it belongs", func() bool {
				return (c.holder == "" || holder() == c.holder) && strings.Contains(lantest.Run(t, "ip -o addr show"), holder()+"    inet "+address.String())
			})
			lantest.Run(t, "ip neigh flush all")
			lantest.Run(t, "ip -n lan neigh flush all")
			alive(t) // also when nobody remembers whom to send to
			if c.undo == "" {
				return
			}
			if out, err := exec.Command("sh", "-ec", c.undo).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", c.undo, err, out)
			}
			alive(t)
			lantest.Eventually(t, "back on the card", func() bool { return holder() == "boot0" })
		})
	}
	if len(moves) < 4 {
		t.Errorf("told of %d moves", len(moves))
	}
}
