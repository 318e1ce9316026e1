package swarm

import (
	"context"
	"encoding/binary"
	"net"
	"time"

	"viver.lan/internal/contain"
	"viver.lan/internal/exchange"
	"viver.lan/internal/sleep"
)

// uTP (BEP 29) is BitTorrent over UDP. We do not speak it, but most clients
// try it before TCP, and some wait long for an answer: libtorrent for seconds,
// Transmission 3.00 for ever. So we say no, and call back.

// The first byte of a packet is its type and version 1.
const (
	utpReset  = 3<<4 | 1
	utpSyn    = 4<<4 | 1
	utpHeader = 20
)

// callBackAfter is how long a client has to come back by TCP itself.
const callBackAfter = 2 * time.Second

// refuseUTP returns the answer to packet, a reset of the connection that it
// wants to open, or nil when it opens none.
func refuseUTP(packet []byte) []byte {
	if len(packet) < utpHeader || packet[0] != utpSyn {
		return nil
	}
	answer := make([]byte, utpHeader)
	answer[0] = utpReset
	copy(answer[2:4], packet[2:4])                  // the connection,
	copy(answer[8:12], packet[4:8])                 // when it was asked for,
	copy(answer[18:20], packet[16:18])              // and by which packet
	binary.BigEndian.PutUint32(answer[12:], 64<<10) // a window, as others send one
	return answer
}

// serveUTP refuses uTP until ctx ends. It is a courtesy: a node does without
// where the port is taken.
func (s *Swarm) serveUTP(ctx context.Context) error {
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(ctx, "udp", s.listen.String())
	if err != nil {
		s.log.Info("uTP is not refused, some clients may take long to connect", "error", err)
		return nil
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	udp, buf := conn.(*net.UDPConn), make([]byte, 1500)
	for {
		n, from, err := udp.ReadFromUDPAddrPort(buf)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil { // the link is away for a moment
			_ = sleep.For(ctx, time.Second) // the next read tells of ctx
			continue
		}
		contain.Do(s.log, "a uTP packet", func() {
			if answer := refuseUTP(buf[:n]); answer != nil && exchange.Allowed(s.cfg.Network, from.Addr()) {
				_, _ = udp.WriteToUDPAddrPort(answer, from) // may be lost, as any packet
				s.report("a client that has tried uTP", func(x *exchange.Exchange) { x.CallBack(from, callBackAfter) })
			}
		})
	}
}
