package boothost

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pin/tftp/v3"
)

func TestBlocksFitTheLink(t *testing.T) {
	for mtu, want := range map[int]int{1500: 1468, 9000: 1468, 1280: 1248, 576: 544, 68: 513} {
		if got := blockFor(mtu); got != want {
			t.Errorf("MTU %d: blocks of %d bytes, want %d", mtu, got, want)
		}
	}
}

// transfer is one that a client has asked for and does not take.
type transfer struct {
	from net.UDPAddr
	held chan struct{}
}

func (r transfer) RemoteAddr() net.UDPAddr { return r.from }
func (r transfer) SetSize(int64)           {}
func (r transfer) ReadFrom(io.Reader) (int64, error) {
	<-r.held
	return 0, io.ErrClosedPipe
}

var _ tftp.OutgoingTransfer = transfer{}

// Many clients at once, and one that asks again and again, take a bounded number
// of places; a request that is refused costs no question to another node.
func TestTFTPPlacesAreBounded(t *testing.T) {
	cfg := testConfig(t)
	var questions atomic.Int64
	cfg.Peers = func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort("10.77.0.8:6880")} }
	cfg.Reachable = func(netip.AddrPort) bool { questions.Add(1); return true }
	s := newTFTPServer(newHost(t, cfg))
	held, ended := make(chan struct{}), make(chan error)
	ask := func(from string) {
		go func() {
			ended <- s.read(context.Background(), grubName, transfer{net.UDPAddr{IP: net.ParseIP(from), Port: 1069}, held})
		}()
	}
	refused := func() {
		t.Helper()
		if err := <-ended; err == nil || !strings.Contains(err.Error(), "busy") {
			t.Errorf("refused with %v", err)
		}
	}
	for range 2 * tftpPerClient {
		ask("10.77.0.9")
	}
	for range tftpPerClient {
		refused()
	}
	for n := range tftpTransfers {
		ask(netip.AddrFrom4([4]byte{10, 77, 1 + byte(n/250), 1 + byte(n%250)}).String())
	}
	for range tftpPerClient {
		refused() // the places of the one count among all
	}
	if n := questions.Load(); n > tftpTransfers {
		t.Errorf("other nodes were asked %d times", n)
	}
	close(held)
	for range tftpTransfers {
		<-ended
	}
	if s.total != 0 || len(s.active) != 0 {
		t.Errorf("%d places are not given back", s.total)
	}
}
