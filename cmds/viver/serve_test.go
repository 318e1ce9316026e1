package main

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/blockdaemon"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcpclient"
	"viver.lan/internal/ether"
	"viver.lan/internal/journal"
	"viver.lan/internal/manifest"
	"viver.lan/internal/netbed"
	"viver.lan/internal/netbed/lantest"
	"viver.lan/internal/packet"
)

// asVolume has the test binary be a volume on another machine, with pieces in the file that
// this names, until the test has seen that it has the whole image.
const asVolume = "VIVER_TEST_AS_VOLUME"

// becomeVolume joins the network of TestNetnsServe from the node of it.
func becomeVolume(store string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // the test ends it before
	defer cancel()
	o := blockdaemon.Options{Listen: netip.MustParseAddrPort("127.0.0.1:10809"), Swarm: netip.MustParseAddrPort("192.168.50.9:6881"),
		Gossip: netip.MustParseAddrPort("192.168.50.9:7946"), Metainfo: store + ".torrent", Store: store, Name: "volume"}
	if err := o.Seeds.Add("192.168.50.2:7946"); err != nil {
		return err
	}
	return blockdaemon.RunStandalone(ctx, o)
}

// TestNetnsServe serves a network that has a DHCP server, as on an installed machine.
//
//	this namespace             namespace "lan"                  namespace "pc"
//	boot0: viver serve ------- far0 [ switch0: dnsmasq ] ------- card
func TestNetnsServe(t *testing.T) {
	if !lantest.Enter(t, "curl") {
		return
	}
	for _, line := range []string{
		"ip addr add 192.168.50.2/24 dev boot0", "ip link set boot0 up",
		"ip -n lan link add switch0 type bridge", "ip -n lan link set switch0 up", "ip -n lan link set far0 master switch0",
		"ip -n lan addr del 192.168.50.1/24 dev far0", "ip -n lan addr add 192.168.50.1/24 dev switch0",
		"ip netns add pc", "ip link add card address 52:54:00:00:00:99 type veth peer name port netns lan", "ip link set card netns pc",
		"ip -n lan link set port master switch0 up", "ip -n pc addr add 192.168.50.9/24 dev card", "ip -n pc link set card up", "ip -n pc link set lo up",
	} {
		lantest.Run(t, line)
	}
	before := lantest.Run(t, "ip -4 -o addr") + lantest.Run(t, "ip route")
	if err := os.Setenv("STATE_DIRECTORY", t.TempDir()); err != nil { // this process runs this test only
		t.Fatal(err)
	}
	root, lib := tree(t, 4<<20)
	image := filepath.Join(t.TempDir(), "lab")
	if out, err := viver(t, "image", "build", root, "-o", image, "--lib", lib, "--level", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	refused := func(want string, args ...string) {
		t.Helper()
		if out, err := viver(t, append([]string{"serve", image}, args...)...).CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("serve %v: %v, without %q:\n%s", args, err, want, out)
		}
	}
	refused("no network interface nosuch\n  - boot0 (52:54:00:00:00:01): 192.168.50.2/24", "--interface", "nosuch")
	refused("boot1 cannot be served: it is switched off", "--interface", "boot1")
	tftp := exec.Command("dnsmasq", "--keep-in-foreground", "--log-facility=-", "--conf-file=/dev/null", "--port=0", "--user=", "--group=", "--pid-file=",
		"--enable-tftp", "--tftp-root="+t.TempDir())
	if err := tftp.Start(); err != nil {
		t.Fatal(err)
	}
	lantest.Eventually(t, "another TFTP server runs", func() bool { return strings.Contains(lantest.Run(t, "ss -Hlun sport = :69"), ":69") })
	refused("UDP port 69 (TFTP) on boot0 is taken by dnsmasq (process ")
	_ = tftp.Process.Kill()
	_ = tftp.Wait() // it was killed

	lantest.DNSMasq(t, "--interface=switch0", "--no-ping", lantest.Range)
	settings := filepath.Join(t.TempDir(), "viver.toml")
	if err := os.WriteFile(settings, []byte("[console]\nlogin = true\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	said := &journal.Journal{}
	server := viver(t, "serve", image, "--settings", settings)
	server.Stdout, server.Stderr = said, said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	t.Cleanup(func() { t.Logf("viver serve:\n%s", said) })
	lantest.Eventually(t, "all is served", func() bool {
		return strings.Contains(said.String(), "service=dhcp state=started") && strings.Contains(said.String(), "service=http state=started")
	})
	if !strings.Contains(said.String(), "no addresses, because foreign DHCP server 192.168.50.1") {
		t.Error("the DHCP server is not named")
	}
	refused("viver serve runs on this machine already")

	m := manifestOf(t, image)
	offers := pxeOffers(t)
	if o := offers["192.168.50.1"]; o == nil || o.YourIPAddr.IsUnspecified() {
		t.Errorf("the DHCP server's offer: %v", o)
	}
	ours := offers["192.168.50.2"]
	if ours == nil || !ours.YourIPAddr.IsUnspecified() || ours.BootFileName == "" {
		t.Fatalf("the server's offer: %v", ours)
	}
	at := "http://192.168.50.2/"
	for _, url := range []string{"tftp://192.168.50.2/" + ours.BootFileName, at + "boot/" + m.Infohash.String() + "/" + manifest.Kernel, at + "boot/" + m.Infohash.String() + "/" + manifest.File} {
		if got := fetchFrom(t, "pc", url); len(got) == 0 {
			t.Errorf("%s: empty", url)
		}
	}
	if got := fetchFrom(t, "pc", at+"settings.toml"); !strings.Contains(got, "login = true") {
		t.Errorf("settings: %s", got)
	}
	volume(t, image)
	publishes(t, root, lib, at)
	if after := lantest.Run(t, "ip -4 -o addr") + lantest.Run(t, "ip route"); after != before {
		t.Errorf("the machine's network was:\n%s\nand is:\n%s", before, after)
	}

	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("told to end: %v", err)
	}
	if _, err := os.Stat(control.RunDir); err == nil {
		t.Errorf("%s is left", control.RunDir)
	}
	refused("boot0 cannot be served: it has no carrier", "--interface", pulled(t))
}

// publishes gives the server another image, which it keeps and offers then.
func publishes(t *testing.T, root, lib, at string) {
	t.Helper()
	next := filepath.Join(t.TempDir(), "next")
	for _, args := range [][]string{{"image", "build", root, "-o", next, "--lib", lib, "--level", "1"}, {"image", "publish", next, "--socket", control.Socket}} {
		cmd := viver(t, args...)
		late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Signal(syscall.SIGINT) })
		out, err := cmd.CombinedOutput()
		if late.Stop(); err != nil {
			t.Fatalf("%s: %v: %s", args, err, out)
		}
		t.Logf("%s", out)
	}
	m := manifestOf(t, next)
	lantest.Eventually(t, "the server boots machines with the published image", func() bool {
		script, err := exec.Command("ip", "netns", "exec", "pc", "curl", "-sS", "--fail", "--max-time", "5", at+"boot.ipxe").Output()
		return err == nil && strings.Contains(string(script), m.Infohash.String())
	})
	if got := fetchFrom(t, "pc", at+"boot/"+m.Infohash.String()+"/"+manifest.Kernel); len(got) == 0 {
		t.Error("the published image's kernel is empty")
	}
}

// pulled pulls the server's cable.
func pulled(t *testing.T) string {
	lantest.Run(t, "ip -n lan link set far0 down")
	return "boot0"
}

// volume fetches the whole image on the machine "pc", by the swarm.
func volume(t *testing.T, image string) {
	t.Helper()
	store := filepath.Join(t.TempDir(), "store")
	torrent, err := os.ReadFile(filepath.Join(image, manifest.Metainfo))
	if err == nil {
		err = os.WriteFile(store+".torrent", torrent, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", "pc", os.Args[0])
	cmd.Env = append(os.Environ(), asVolume+"="+store)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lantest.Eventually(t, "another machine has the image", func() bool {
		s, err := control.NewClient(control.Socket).Status(t.Context())
		return err == nil && len(s.Peers) == 1 && s.Peers[0].Have == s.Transfer.Pieces
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
}

// fetchFrom gets a file as a machine in a namespace does.
func fetchFrom(t *testing.T, namespace, url string) string {
	t.Helper()
	out, err := exec.Command("ip", "netns", "exec", namespace, "curl", "-sS", "--fail", "--max-time", "180", url).Output()
	if err != nil {
		t.Errorf("%s: %v", url, err)
	}
	return string(out)
}

// pxeOffers are the answers to a BIOS machine that asks for its boot program, by server.
func pxeOffers(t *testing.T) map[string]*dhcpv4.DHCPv4 {
	t.Helper()
	var socket *packet.Socket
	var mac ether.MAC
	if err := netbed.In("pc", func() error {
		card, err := net.InterfaceByName("card")
		if err != nil {
			return err
		}
		mac = ether.MAC(card.HardwareAddr)
		socket, err = packet.Open(card.Index, packet.EtherTypeIPv4, packet.UDPTo(dhcpv4.ClientPort))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	ask, err := dhcpv4.NewDiscovery(mac[:], dhcpv4.WithBroadcast(true),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00000:UNDI:002001")),
		dhcpv4.WithGeneric(dhcpv4.OptionClientSystemArchitectureType, []byte{0, 0}),
		dhcpv4.WithGeneric(dhcpv4.OptionClientMachineIdentifier, make([]byte, 17)))
	if err != nil {
		t.Fatal(err)
	}
	offers := map[string]*dhcpv4.DHCPv4{}
	for range 60 {
		if err := socket.Send(dhcpclient.BroadcastFrame(ask, mac)); err != nil {
			t.Fatal(err)
		}
		_ = socket.ReceiveUntil(t.Context(), time.Now().Add(3*time.Second), func(frame []byte) bool { // asked again after that
			d, err := packet.ParseDatagram(frame)
			if err != nil {
				return false
			}
			if p, err := dhcpv4.FromBytes(d.Payload); err == nil && p.MessageType() == dhcpv4.MessageTypeOffer {
				offers[p.ServerIdentifier().String()] = p
			}
			return len(offers) == 2
		})
		if len(offers) == 2 {
			break
		}
	}
	return offers
}
