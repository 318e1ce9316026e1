// Package lantest puts a test on a small network of namespaces: a machine with two
// cards, and what is at the other end of their cables.
//
//	this namespace            namespace "lan"
//	boot0 ------------------- far0     192.168.50.1: a DHCP server, or another machine
//	boot1 ------------------- far1     nobody, unless a test says otherwise
//
// It knows no package of the product but the frames that its own servers send. The
// invariant: nothing needs root or touches the host's network, and what a test
// starts ends with it.
package lantest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"

	"viver.lan/internal/ether"
	"viver.lan/internal/journal"
	"viver.lan/internal/netbed"
	"viver.lan/internal/netbed/netbedtest"
	"viver.lan/internal/packet"
	"viver.lan/internal/sleep"
)

// Enter returns true in the process that is on such a network. Everywhere else it
// runs the calling test there, and returns false. tools are programs that the test
// needs besides ip and dnsmasq.
func Enter(t *testing.T, tools ...string) bool {
	t.Helper()
	netbedtest.Need(t, append(tools, "ip", "dnsmasq")...)
	t.Parallel() // the process inside does the work, and mostly it waits
	if !netbedtest.Enter(t) {
		return false
	}
	Run(t, "ip netns add lan")
	for i := range 2 {
		Run(t, fmt.Sprintf("ip link add boot%d address 52:54:00:00:00:0%d type veth peer name far%d address 02:00:00:00:00:0%d netns lan", i, i+1, i, i+1))
		Run(t, fmt.Sprintf("ip -n lan link set far%d up", i))
	}
	Run(t, "ip -n lan link set lo up")
	Run(t, "ip -n lan addr add 192.168.50.1/24 dev far0")
	return true
}

// AtFarEnd runs f in the namespace "lan"; a socket stays where it was opened.
func AtFarEnd(t *testing.T, f func() error) {
	t.Helper()
	if err := netbed.In("lan", f); err != nil {
		t.Fatalf("at the far end: %v", err)
	}
}

// FarSocket opens a packet socket on a link at the far end, until the test ends, and
// returns the link's MAC.
func FarSocket(t *testing.T, on string, etherType uint16, filter []bpf.Instruction) (s *packet.Socket, mac ether.MAC) {
	t.Helper()
	AtFarEnd(t, func() error {
		link, err := net.InterfaceByName(on)
		if err == nil {
			mac = ether.MAC(link.HardwareAddr)
			s, err = packet.Open(link.Index, etherType, filter)
		}
		return err
	})
	t.Cleanup(s.Close)
	return s, mac
}

// Receive hands all frames of a socket to handle until the test ends.
func Receive(t *testing.T, s *packet.Socket, handle func(frame []byte)) {
	ctx, cancel := context.WithCancel(context.Background())
	var receiving sync.WaitGroup
	receiving.Go(func() {
		_ = s.ReceiveUntil(ctx, time.Time{}, func(frame []byte) bool { handle(frame); return false })
	})
	t.Cleanup(func() { cancel(); receiving.Wait() })
}

// Run runs a command line, without quoting, and returns what it prints.
func Run(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// Arguments of DNSMasq: where it listens, and what it gives out.
const (
	OnFar0 = "--interface=far0"
	Range  = "--dhcp-range=192.168.50.100,192.168.50.150,255.255.255.0,120"
)

// DNSMasq serves addresses on a far end until the test or stop ends it.
func DNSMasq(t *testing.T, args ...string) (stop func()) {
	t.Helper()
	base := []string{"netns", "exec", "lan", "dnsmasq", "--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null",
		"--port=0", "--bind-interfaces", "--user=", "--group=", "--pid-file=", "--log-dhcp",
		"--dhcp-leasefile=" + filepath.Join(t.TempDir(), "leases"),
		"--dhcp-option=option:dns-server,192.168.50.1", "--domain=lab.example"}
	cmd := exec.Command("ip", append(base, args...)...)
	log := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = sync.OnceFunc(func() {
		select {
		case err := <-ended:
			t.Errorf("dnsmasq ended by itself: %v", err)
		default:
			_ = cmd.Process.Kill()
			<-ended
		}
		t.Logf("dnsmasq:\n%s", log)
	})
	t.Cleanup(stop)
	return stop
}

// Log logs into the test's output.
func Log(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Journal is Log for a test that reads it while it is written.
func Journal(t *testing.T) (*journal.Journal, *slog.Logger) {
	j := &journal.Journal{}
	return j, slog.New(slog.NewTextHandler(io.MultiWriter(j, t.Output()), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Within returns a context that ends after d, or with the test.
func Within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// Eventually polls until the condition holds. It may take minutes on a machine that has
// other work.
func Eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx := Within(t, 3*time.Minute)
	for !holds() {
		if sleep.For(ctx, 20*time.Millisecond) != nil {
			t.Fatalf("never: %s\n%s%s", what, Run(t, "ip addr"), Run(t, "ip route"))
		}
	}
}

// Card switches a card of this end on and returns it.
func Card(t *testing.T, name string) netlink.Link {
	t.Helper()
	Run(t, "ip link set "+name+" up")
	card, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return card
}
