// Package outsider puts programs of other people on a scenario's LAN: a DHCP
// server that was there before us, a client that must be left alone.
//
// Such a program runs as it is, in namespaces of its own where it is root and
// where its only network is a TAP device, whose frames go to the LAN's switch.
// It needs no root on the host, and it is no virtual machine: it starts in a
// moment. The invariant: neither it nor its traffic reaches the host's network,
// and it ends with the test, or the program, that started it.
package outsider

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"

	"viver.lan/internal/journal"
	"viver.lan/internal/netbed"
	"viver.lan/qemu-tests/harness/lan"
)

// Config is the machine that the program believes it runs on.
type Config struct {
	Name    string
	MAC     string
	Address netip.Prefix // of its network card, LinkName
	// Mangle, when set, sees and may change frames that it sends.
	Mangle func(frame []byte) `json:"-"`
}

// LinkName is the outsider's network card.
const LinkName = "lan0"

// env tells a copy of the test binary that it is an outsider, and which.
const env = "VIVER_OUTSIDER"

// order is what the copy is told.
type order struct {
	Config
	Argv []string
}

// Main takes the place of m.Run in TestMain of a package that uses Start: in an
// outsider's process it runs that instead of the tests.
func Main(m *testing.M) (code int) {
	is, err := Inside()
	if !is {
		return m.Run()
	}
	fmt.Fprintln(os.Stderr, "outsider:", err)
	return 1
}

// Inside reports whether this process is an outsider's. It then was one, and
// returns why it ended: the caller exits.
func Inside() (bool, error) {
	text := os.Getenv(env)
	if text == "" {
		return false, nil
	}
	return true, live(text)
}

// Program is an outsider that runs.
type Program struct {
	log   journal.Journal
	name  string
	port  *lan.Port
	kill  func()
	ended chan error
}

// Log is what the program printed so far.
func (p *Program) Log() string { return p.log.String() }

// Port is its plug in the switch.
func (p *Program) Port() *lan.Port { return p.port }

// Start runs a program on the LAN until the test ends. What it printed is
// shown when the test failed.
func Start(t testing.TB, sw *lan.Switch, c Config, argv ...string) *Program {
	t.Helper()
	p, err := Run(sw, c, argv...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("%s printed:\n%s", c.Name, p.Log())
		}
	})
	return p
}

// Run runs a program on the LAN until Close. The calling program begins with
// Inside, since its own copy becomes the outsider.
func Run(sw *lan.Switch, c Config, argv ...string) (*Program, error) {
	text, err := json.Marshal(order{c, argv})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	theirs, ours, err := lan.Pair(c.Name)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	p := &Program{name: c.Name, ended: make(chan error, 1)}
	if p.port, err = sw.Plug(c.Name, ours, lan.PortOptions{Mangle: c.Mangle}); err != nil {
		return nil, err
	}
	cmd, err := netbed.Self(context.Background()) // ended by Close, which can tell that from its own end
	if err != nil {
		p.port.Close()
		return nil, err
	}
	cmd.Env = append(cmd.Env, env+"="+string(text))
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the copy dies with the thread that started it
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		p.port.Close()
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	p.kill = func() { _ = cmd.Process.Kill() } // it may be gone
	return p, nil
}

// Close ends the program. It is an error if that had ended by itself.
func (p *Program) Close() error {
	select {
	case err := <-p.ended:
		return fmt.Errorf("%s ended by itself: %v", p.name, err)
	default:
		p.kill() // it is not needed any more
		<-p.ended
		return nil
	}
}

// live is an outsider's whole life.
func live(text string) error {
	if err := os.Unsetenv(env); err != nil { // the program may be a copy of ours, too
		return err
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	if err := netbed.Settle(); err != nil {
		return err
	}
	tap, err := card(o.Config)
	if err != nil {
		return err
	}
	cable := os.NewFile(3, "cable")
	ended := make(chan error, 3)
	go func() { ended <- toLAN(cable, tap) }()
	go func() { ended <- fromLAN(tap, cable) }()
	cmd := exec.Command(o.Argv[0], o.Argv[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { ended <- cmd.Wait() }()
	return <-ended // and with us, the first of our namespace, everything else
}

// card makes the network card.
func card(c Config) (*os.File, error) {
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: LinkName}, Mode: netlink.TUNTAP_MODE_TAP,
		Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_ONE_QUEUE, Queues: 1, NonPersist: true}
	if err := netlink.LinkAdd(tap); err != nil {
		return nil, fmt.Errorf("make a TAP device: %w", err)
	}
	mac, err := net.ParseMAC(c.MAC)
	if err != nil {
		return nil, err
	}
	link, err := netlink.LinkByName(LinkName)
	if err != nil {
		return nil, err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	steps := []error{netlink.LinkSetUp(lo), netlink.LinkSetHardwareAddr(link, mac)}
	if c.Address.IsValid() {
		network := &net.IPNet{IP: c.Address.Addr().AsSlice(), Mask: net.CIDRMask(c.Address.Bits(), 32)}
		steps = append(steps, netlink.AddrAdd(link, &netlink.Addr{IPNet: network}))
	}
	return tap.Fds[0], errors.Join(append(steps, netlink.LinkSetUp(link))...)
}

// toLAN puts a length before each frame of the card, fromLAN takes it away.
func toLAN(cable io.Writer, card io.Reader) error {
	buf := make([]byte, 4+lan.MaxFrame)
	for {
		n, err := card.Read(buf[4:])
		if err != nil {
			return fmt.Errorf("read from the card: %w", err)
		}
		binary.BigEndian.PutUint32(buf, uint32(n))
		if _, err := cable.Write(buf[:4+n]); err != nil {
			return fmt.Errorf("write to the LAN: %w", err)
		}
	}
}

func fromLAN(card io.Writer, cable io.Reader) error {
	buf := make([]byte, lan.MaxFrame)
	var length [4]byte
	for {
		if _, err := io.ReadFull(cable, length[:]); err != nil {
			return fmt.Errorf("read from the LAN: %w", err)
		}
		n := binary.BigEndian.Uint32(length[:])
		if n > lan.MaxFrame {
			return fmt.Errorf("read from the LAN: a frame of %d bytes", n)
		}
		if _, err := io.ReadFull(cable, buf[:n]); err != nil {
			return fmt.Errorf("read from the LAN: %w", err)
		}
		if _, err := card.Write(buf[:n]); err != nil {
			return fmt.Errorf("write to the card: %w", err)
		}
	}
}
