package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// Bounds on packets. memberlist reads whatever arrives, and believes the lengths
// that a message claims: 30 bytes make it allocate 100 MB, a compressed packet
// unfolds to 40 MB.
const (
	maxPacket        = 1472 // bytes; an Ethernet frame's, memberlist's own are smaller
	maxPackets       = 200  // of one address, a second; members send each other some 20
	maxIndirectPings = 200  // a second: we ping for another member, each is a goroutine for 0.5 s
)

var errForeign = errors.New("not of our gossip")

// Kinds of memberlist's messages.
const (
	msgPing         = 0
	msgIndirectPing = 1
	msgAck          = 2
	msgSuspect      = 3
	msgAlive        = 4
	msgDead         = 5
	msgPushPull     = 6
	msgCompound     = 7
	msgUser         = 8
	msgNack         = 11
	msgCRC          = 12
	msgError        = 13
	msgLabel        = 244
)

// labelHeader is in front of all that our members send first.
var labelHeader = string([]byte{msgLabel, byte(len(label))}) + label

// packetFilter decides which packets are passed on. It is for one goroutine.
type packetFilter struct {
	received      perSecond
	indirectPings rate
	budget        *signatureBudget
	pending       *pendingPings
}

func newPacketFilter(budget *signatureBudget, pending *pendingPings) *packetFilter {
	return &packetFilter{indirectPings: rate{limit: maxIndirectPings, period: time.Second}, budget: budget, pending: pending}
}

func (f *packetFilter) check(p []byte, sender netip.AddrPort, now time.Time) error {
	if !sender.IsValid() {
		return errors.New("not of our network")
	}
	messages, err := unpack(p)
	if err != nil {
		return err
	}
	from := sender.Addr()
	f.received.advance(now)
	f.received.add(from)
	if f.received.by[from] > maxPackets {
		return fmt.Errorf("more than %d a second", maxPackets)
	}
	for _, m := range messages {
		if err := f.checkMessage(m, sender, now); err != nil {
			return err
		}
	}
	return nil
}

func (f *packetFilter) checkMessage(m []byte, from netip.AddrPort, now time.Time) error {
	switch m[0] {
	case msgIndirectPing:
		if !f.indirectPings.allow(now) {
			return fmt.Errorf("more than %d indirect pings a second", maxIndirectPings)
		}
	case msgAck, msgNack:
		if !f.pending.expects(m, from) {
			return errors.New("it answers no ping of ours")
		}
	case msgAlive:
		var alive struct {
			Node string
			Meta []byte
		}
		if err := codec.NewDecoderBytes(m[1:], new(codec.MsgpackHandle)).Decode(&alive); err != nil {
			return fmt.Errorf("%w: %w", errForeign, err)
		}
		if !f.budget.allow(from.Addr(), alive.Node, alive.Meta, now) {
			return errTooMany
		}
	}
	return nil
}

// unpack takes a packet apart as memberlist will, into messages with their kinds.
func unpack(p []byte) (messages [][]byte, err error) {
	if len(p) > maxPacket {
		return nil, fmt.Errorf("%w: %d bytes", errForeign, len(p))
	}
	p, ok := bytes.CutPrefix(p, []byte(labelHeader))
	if !ok {
		return nil, fmt.Errorf("%w: no label %q", errForeign, label)
	}
	if len(p) >= 5 && p[0] == msgCRC {
		p = p[5:]
	}
	if len(p) < 2 || p[0] != msgCompound {
		return [][]byte{p}, inspectMessage(p)
	}
	n := 2 * int(p[1]) // bytes of lengths
	if len(p) < 2+n {
		return nil, fmt.Errorf("%w: truncated", errForeign)
	}
	lengths, rest := p[2:2+n], p[2+n:]
	for ; len(lengths) > 0; lengths = lengths[2:] {
		size := int(binary.BigEndian.Uint16(lengths))
		if size > len(rest) {
			return nil, fmt.Errorf("%w: truncated", errForeign)
		}
		if err := inspectMessage(rest[:size]); err != nil {
			return nil, err
		}
		messages, rest = append(messages, rest[:size]), rest[size:]
	}
	return messages, nil
}

// inspectMessage refuses what our members do not send in packets, above all
// what holds further messages.
func inspectMessage(p []byte) error {
	if len(p) == 0 {
		return fmt.Errorf("%w: empty", errForeign)
	}
	switch p[0] {
	case msgPing, msgIndirectPing, msgAck, msgSuspect, msgAlive, msgDead, msgUser, msgNack:
		return nil
	}
	return fmt.Errorf("%w: kind %d", errForeign, p[0])
}
