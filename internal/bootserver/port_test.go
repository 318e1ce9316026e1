package bootserver

import (
	"fmt"
	"net"
	"os"
	"testing"
)

// Who has a port is found out, so that the operator need not search.
func TestHolder(t *testing.T) {
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", ":0") // of both IP versions
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, p := range []port{
		{protocol: "tcp", number: uint16(tcp.Addr().(*net.TCPAddr).Port)},
		{protocol: "udp", number: uint16(udp.LocalAddr().(*net.UDPAddr).Port)},
	} {
		if got, want := holder("/proc", p), fmt.Sprintf("bootserver.test (process %d)", os.Getpid()); got != want {
			t.Errorf("%s: %q, want %q", p.protocol, got, want)
		}
	}
	if got := holder(t.TempDir(), port{protocol: "tcp", number: 1}); got != "another program" {
		t.Errorf("nobody: %q", got)
	}
}
