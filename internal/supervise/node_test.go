package supervise

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/control"
	"viver.lan/internal/description"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/manifest"
	"viver.lan/internal/netbed"
	"viver.lan/internal/netbed/netbedtest"
	"viver.lan/internal/notify"
	"viver.lan/internal/operator"
	"viver.lan/internal/roles"
)

// payload is a block daemon's, as far as the agent asks for it.
type payload struct {
	notify.Notifier
	image *manifest.Manifest
	data  []byte // of each file
	link  atomic.Pointer[control.BootNetwork]
}

func (p *payload) Status() control.Status {
	return control.Status{Hostname: "node-1", Infohash: p.image.Infohash, BootNetwork: p.link.Load()}
}

func (p *payload) MemberStatus() control.Status { return p.Status() }

func (p *payload) Open(context.Context, string) (io.ReadSeeker, error) {
	return bytes.NewReader(p.data), nil
}
func (p *payload) PutOverride(operator.Override) error { return nil }

func (p *payload) SetRoles(context.Context, []roles.Name) error { return nil }

// The agent runs as on a node, and serves a machine that boots: an address, a
// boot program by TFTP, a kernel by HTTP. It is nobody, may use the two
// capabilities that its ports and its questions to the link take, and can get
// no more. It shows the block daemon's status, and when that says that the machine
// has another address it is started again there.
func TestNetnsAgentHasTheRightsItNeedsOnly(t *testing.T) {
	home := os.Getenv("HOME")
	if !netbedtest.EnterWithUsers(t) {
		return
	}
	binary := "/run/viverd"
	build := exec.Command("go", "build", "-o", binary, "viver.lan/cmds/viverd")
	build.Env = append(os.Environ(), "HOME="+home)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build viverd: %v\n%s", err, out)
	}
	bed, err := netbed.New(netbed.Config{Nodes: 1, MTU: 1500})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bed.Close() })
	pc := bed.Node(0)
	host := netip.MustParsePrefix("10.9.9.9/16")
	p := leaveState(t, host)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- control.Serve(ctx, control.Socket, control.AgentID, p, slog.New(slog.DiscardHandler))
	}()

	pids := make(chan int, 100)
	s := supervisor{
		programs: []program{agent(binary, nil)}, output: os.Stderr,
		started: func(_ string, pid int) { pids <- pid }, shuttingDown: func() bool { return false },
		backoff: 200 * time.Millisecond, log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	defer func() {
		cancel()
		<-ended
		<-served
	}()
	pid := <-pids

	at := func(name string, args ...string) string {
		out, _ := pc.Command(ctx, name, args...).CombinedOutput()
		return string(out)
	}
	var out string
	for end := time.Now().Add(2 * time.Minute); !strings.Contains(out, "obtained from 10.9.9.9"); {
		if time.Now().After(end) {
			t.Fatalf("the machine gets no address: %s", out)
		}
		out = at("udhcpc", "-f", "-i", "eth0", "-n", "-q", "-t", "2", "-T", "1", "-V", dhcp.NodeClass+" test", "-s", "/bin/true")
	}
	until := func(what string, holds func() bool) {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	shows := func(host netip.Addr) func() bool {
		return func() bool {
			return strings.Contains(at("curl", "-s", "http://"+host.String()+"/status"), `"hostname": "node-1"`)
		}
	}
	until("the status page shows the block daemon's status", shows(host.Addr()))
	for _, url := range []string{"tftp://10.9.9.9/undionly.kpxe", "http://10.9.9.9/boot/" + p.image.Infohash.String() + "/vmlinuz"} {
		if got := at("curl", "-s", "--max-time", "20", url); got != string(p.data) {
			t.Errorf("%s gives %d bytes, want %d", url, len(got), len(p.data))
		}
	}
	select {
	case <-pids:
		t.Fatal("the agent has ended and was started again")
	default:
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	const two = "0000000000002400" // CAP_NET_BIND_SERVICE, CAP_NET_RAW
	id := fmt.Sprintf("%d\t%[1]d\t%[1]d\t%[1]d", control.AgentID)
	for key, want := range map[string]string{"Name": "viverd", "Uid": id, "Gid": id, "Groups": "", "NoNewPrivs": "1",
		"CapInh": two, "CapPrm": two, "CapEff": two, "CapBnd": two, "CapAmb": two} {
		m := regexp.MustCompile(`(?m)^` + key + `:[ \t]*(.*?)[ \t]*$`).FindSubmatch(status)
		if m == nil || string(m[1]) != want {
			t.Errorf("%s of the agent is %q, want %q", key, m, want)
		}
	}
	// What gives it priority needs a session of its own.
	if session, err := unix.Getsid(pid); err != nil || session != pid {
		t.Errorf("the agent %d is in session %d, %v", pid, session, err)
	}
	// Nor can it read what root keeps for itself.
	if err := os.WriteFile("/run/secret", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := at("setpriv", fmt.Sprintf("--reuid=%d", control.AgentID), "--clear-groups", "cat", "/run/secret"); !strings.Contains(out, "Permission denied") {
		t.Errorf("a file of root's: %s", out)
	}

	moved := netip.PrefixFrom(host.Addr().Next(), host.Bits())
	p.move(t, moved)
	if <-pids == pid {
		t.Error("the agent of the old address goes on")
	}
	until("it serves at the new address", shows(moved.Addr()))
}

// leaveState puts a host with the medium on the bed's bridge, and what uinit
// would leave for its daemons.
func leaveState(t *testing.T, host netip.Prefix) *payload {
	t.Helper()
	if err := os.Mkdir(control.RunDir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := &payload{data: bytes.Repeat([]byte("boot"), 20000), image: &manifest.Manifest{
		Format: manifest.Format, Name: "test", KernelRelease: "6.1.0", Arch: "amd64", PieceLength: 1 << 17, Infohash: manifest.Infohash{1},
	}}
	for _, name := range []string{manifest.Root, manifest.Kernel, manifest.Initramfs, "boot/undionly.kpxe"} {
		p.image.Files = append(p.image.Files, manifest.FileInfo{Name: name, Size: int64(len(p.data)), SHA256: sha256.Sum256(p.data)})
	}
	mac := p.move(t, host)
	var text bytes.Buffer
	for _, err := range []error{
		p.image.Write(&text),
		control.WriteState(control.BootFile, &control.Boot{NodePrefix: "node", MAC: mac,
			First: true, Pool: host.Masked(), DHCP: string(dhcp.Full)}),
		description.Files{Manifest: text.Bytes(), Signature: []byte("signature"), Metainfo: []byte("metainfo")}.Write(control.RunDir),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// move gives the bed's bridge an address, and says so as the block daemon would.
func (p *payload) move(t *testing.T, host netip.Prefix) ether.MAC {
	t.Helper()
	bridge, err := netlink.LinkByName("br0")
	if err != nil {
		t.Fatal(err)
	}
	attrs := bridge.Attrs()
	network := bootnet.Network{
		Card:  bootnet.Card{Index: attrs.Index, Name: attrs.Name, MAC: ether.MAC(attrs.HardwareAddr)},
		Lease: bootnet.Lease{Address: host},
	}
	for _, err := range []error{
		netlink.AddrAdd(bridge, &netlink.Addr{IPNet: &net.IPNet{IP: host.Addr().AsSlice(), Mask: net.CIDRMask(host.Bits(), 32)}}),
		control.WriteState(control.BootNetworkFile, network),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	p.link.Store(&control.BootNetwork{Card: network.Card, Holder: network.Card, Address: host})
	p.Notify()
	return network.Card.MAC
}
