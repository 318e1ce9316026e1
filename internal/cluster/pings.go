package cluster

import (
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// pendingTime is how long at least a ping is remembered. memberlist waits for
// 0.8 s; but a packet with a late answer, of a machine that was frozen, brings other
// news, too.
const pendingTime = 10 * time.Second

// pendingPings are the pings that this machine sent, by number and address.
// memberlist counts its pings, so anybody can guess a number, and it takes an answer
// from whoever sends one. They are bounded by what we send in twice pendingTime.
type pendingPings struct {
	mu                sync.Mutex
	began             time.Time // of the current period
	current, previous map[ping]bool
}

type ping struct {
	number uint32
	to     netip.AddrPort
}

// sent notes the pings and indirect pings in a packet of ours.
func (p *pendingPings) sent(packet []byte, to string, at time.Time) {
	addr, addrErr := netip.ParseAddrPort(to)
	messages, err := unpack(packet)
	if err != nil || addrErr != nil {
		return // memberlist sends none such
	}
	for _, m := range messages {
		if m[0] == msgPing || m[0] == msgIndirectPing {
			p.add(ping{pingNumber(m), addr}, at)
		}
	}
}

func (p *pendingPings) add(n ping, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if since := at.Sub(p.began); since >= pendingTime {
		if p.previous = p.current; since >= 2*pendingTime {
			p.previous = nil
		}
		p.began, p.current = at, make(map[ping]bool)
	}
	p.current[n] = true
}

// expects reports whether an answer is to a ping that was sent to its sender.
func (p *pendingPings) expects(answer []byte, from netip.AddrPort) bool {
	n := ping{pingNumber(answer), netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current[n] || p.previous[n]
}

// pingNumber returns the number of a ping or an answer. Those that cannot be read
// have 0, which no ping has.
func pingNumber(m []byte) uint32 {
	var body struct{ SeqNo uint32 }
	_ = codec.NewDecoderBytes(m[1:], new(codec.MsgpackHandle)).Decode(&body)
	return body.SeqNo
}
