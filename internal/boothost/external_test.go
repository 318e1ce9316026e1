package boothost

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/dhcp"
)

// TestNetnsExternal gives a real dnsmasq what our page says, and real firmware's
// packets to it: each gets its boot program, and a stranger an address only.
func TestNetnsExternal(t *testing.T) {
	if !inNetns(t, "dnsmasq", "curl") {
		return
	}
	b := newBench(t, func(c *Config) { c.Mode = dhcp.External })
	conf := filepath.Join(b.dir, "dnsmasq.conf")
	b.run("curl", "-sf", "-o", conf, "http://"+selfIP+"/external/dnsmasq.conf")
	if page := b.run("curl", "-sf", "http://"+selfIP+"/"); !strings.Contains(page, "external/dnsmasq.conf") {
		t.Errorf("the page does not lead to it:\n%s", page)
	}
	server := exec.Command("dnsmasq", "--keep-in-foreground", "--log-facility=-", "--conf-file="+conf, "--port=0", "--user=", "--group=", "--pid-file=",
		"--interface=boot", "--no-ping", "--dhcp-leasefile="+filepath.Join(b.dir, "leases"), "--dhcp-range=10.77.200.1,10.77.200.200,255.255.0.0,1h")
	var said strings.Builder
	server.Stdout, server.Stderr = &said, &said
	// It is killed with the thread that starts it, which therefore is this test's
	// alone.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		server.Process.Kill()
		server.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	}()
	b.speak(func(ask func(p *dhcpv4.DHCPv4, to string), answer func() *dhcpv4.DHCPv4) {
		time.Sleep(time.Second) // dnsmasq does not say when it listens
		for _, c := range []struct{ packet, file, next, class string }{
			{"ovmf-pxe-discover", "shimx64.efi", selfIP, ""},
			{"ipxe-bios-discover", "http://" + selfIP + "/boot.ipxe", selfIP, ""},
			{"ovmf-http-discover", b.host.dhcp.Programs[dhcp.X64].URL, "", "HTTPClient"},
			{"udhcpc-discover", "", "", ""},
		} {
			data, err := os.ReadFile("../dhcp/testdata/" + c.packet + ".bin")
			if err != nil {
				t.Fatal(err)
			}
			p, err := dhcpv4.FromBytes(data)
			if err != nil {
				t.Fatal(err)
			}
			p.SetBroadcast()
			ask(p, everyone)
			r := answer()
			file := r.BootFileName
			if file == "" {
				file = r.BootFileNameOption()
			}
			if file != c.file || c.next != "" && !r.ServerIPAddr.Equal(net.ParseIP(c.next)) || c.class != "" && r.ClassIdentifier() != c.class || r.YourIPAddr.IsUnspecified() {
				t.Errorf("%s: file %q from %s, class %q, address %s; want %q from %q, class %q", c.packet, file, r.ServerIPAddr, r.ClassIdentifier(), r.YourIPAddr, c.file, c.next, c.class)
			}
		}
	})
}
