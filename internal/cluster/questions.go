package cluster

import (
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// askedTime is how long at least it is known who was asked. memberlist waits for
// 0.8 s; but a packet with a late answer, of a machine that stood still, brings other
// news, too.
const askedTime = 10 * time.Second

// questions knows who was asked by which number. memberlist counts its pings, so anybody
// can guess a number, and it takes an answer from whoever sends one. It is bounded by
// what we ask in twice askedTime.
type questions struct {
	mu       sync.Mutex
	began    time.Time // when now did
	now, old map[number]bool
}

type number struct {
	seq uint32
	to  netip.AddrPort
}

// ask notes what a packet of ours asks: a ping, or a ping for us by somebody else.
func (q *questions) ask(packet []byte, to string, at time.Time) {
	addr, err := netip.ParseAddrPort(to)
	if err != nil {
		return
	}
	messages, _ := unpack(packet) // memberlist's own
	for _, m := range messages {
		if m[0] == msgPing || m[0] == msgIndirectPing {
			q.note(number{seqOf(m), addr}, at)
		}
	}
}

func (q *questions) note(n number, at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if since := at.Sub(q.began); since >= askedTime {
		if q.old = q.now; since >= 2*askedTime {
			q.old = nil
		}
		q.began, q.now = at, make(map[number]bool)
	}
	q.now[n] = true
}

// answers reports whether an answer is of one who was asked.
func (q *questions) answers(m []byte, from netip.AddrPort) bool {
	n := number{seqOf(m), netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.now[n] || q.old[n]
}

// seqOf returns the number of a ping or an answer. Those that cannot be read have 0,
// which no ping has.
func seqOf(m []byte) uint32 {
	var said struct{ SeqNo uint32 }
	_ = codec.NewDecoderBytes(m[1:], new(codec.MsgpackHandle)).Decode(&said)
	return said.SeqNo
}
