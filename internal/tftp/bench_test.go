package tftp

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"
)

// BenchmarkWindows sends a file as large as Debian's GRUB in blocks of 512 bytes,
// as shim asks for it, from a machine that takes 2 ms until it sends: it has other
// work.
func BenchmarkWindows(b *testing.B) {
	file := fileOf(2_300_000)
	for _, window := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("window=%d", window), func(b *testing.B) {
			b.SetBytes(int64(len(file)))
			for b.Loop() {
				fetchLate(b, file, window)
			}
		})
	}
}

func fetchLate(b *testing.B, file []byte, window int) {
	here, there := loopback(b), loopback(b)
	defer here.Close()
	defer there.Close()
	late := &lateConn{UDPConn: here, out: make(chan []byte, 100), to: there.LocalAddr().(*net.UDPAddr).AddrPort()}
	go late.run()
	defer close(late.out)
	l := limits()
	sender := Transfer{request: request{mode: "octet", options: ask(fmt.Sprintf("windowsize %d", window))}, from: late.to,
		limits: &l, conn: late, heard: func() {}}
	c := &client{Conn: there, server: here.LocalAddr().(*net.UDPAddr).AddrPort(), block: defaultBlock, window: window}
	c.start() // ends when its socket is closed
	if n, err := sender.Send(context.Background(), bytes.NewReader(file), int64(len(file))); err != nil || n != int64(len(file)) {
		b.Fatalf("%d bytes, %v", n, err)
	}
}

func loopback(b *testing.B) *net.UDPConn {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	return conn
}

// lateConn sends each packet 2 ms later, and no packet waits for another one.
type lateConn struct {
	*net.UDPConn
	out chan []byte
	to  netip.AddrPort
}

func (c *lateConn) WriteToUDPAddrPort(p []byte, _ netip.AddrPort) (int, error) {
	c.out <- bytes.Clone(p)
	return len(p), nil
}

// run sends what is there when it wakes up, as a busy machine does.
func (c *lateConn) run() {
	for p := range c.out {
		time.Sleep(2 * time.Millisecond)
		for n := len(c.out) + 1; n > 0; n-- {
			_, _ = c.UDPConn.WriteToUDPAddrPort(p, c.to)
			if n > 1 {
				p = <-c.out
			}
		}
	}
}
