package swarm

import (
	"bytes"
	"net"
	"testing"
	"time"
)

// utpOpening is what Transmission 3.00 sends to open a connection.
const utpOpening = "A\x02\x93\x14C\xdc|\xcc\x00\x00\x00\x00\x00\x04\x00\x00\x16`\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00"

func TestRefuseUTP(t *testing.T) {
	syn := []byte(utpOpening)
	want := []byte("1\x00\x93\x14\x00\x00\x00\x00C\xdc|\xcc\x00\x01\x00\x00\x00\x00\x16`")
	if got := refuseUTP(syn); !bytes.Equal(got, want) {
		t.Errorf("answer %q, want %q", got, want)
	}
	for name, packet := range map[string][]byte{
		"nothing": nil, "too short": syn[:19], "a reset itself": append([]byte{0x31}, syn[1:]...),
		"data": append([]byte{0x01}, syn[1:]...), "another version": append([]byte{0x42}, syn[1:]...), "a DHT query": []byte("d1:ad2:id20:abcdefghij01234567"),
	} {
		if got := refuseUTP(packet); got != nil {
			t.Errorf("%s is answered with %q", name, got)
		}
	}
}

// A client that asks for uTP and does not come by TCP is called back at the
// port it asked from.
func TestCallBack(t *testing.T) {
	info, data := newImage(t, 2)
	n := start(t, info, "n", nil)
	at := newFake(info, data, "utp").listen(t)
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(at), net.UDPAddrFromAddrPort(n.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer := make([]byte, 100)
	eventually(t, "uTP is refused", func() bool {
		conn.Write([]byte(utpOpening))
		conn.SetReadDeadline(time.Now().Add(time.Second))
		size, err := conn.Read(answer)
		return err == nil && size == utpHeader && answer[0] == utpReset
	})
	eventually(t, "everything is fetched", func() bool { return n.store.count() == 2 })
}

func FuzzRefuseUTP(f *testing.F) {
	f.Add([]byte(utpOpening))
	f.Add([]byte("d1:ad2:id20:abcdefghij01234567"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		if got := refuseUTP(packet); got != nil && (len(got) != utpHeader || got[0] != utpReset || len(packet) < utpHeader) {
			t.Errorf("%q is answered with %q", packet, got)
		}
	})
}
