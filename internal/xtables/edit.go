package xtables

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// Hook returns the chain of a hook, nil when the table has none.
func (t *Table) Hook(hook int) *Chain {
	for _, c := range t.chains {
		if c.hook == hook {
			return c
		}
	}
	return nil
}

// User returns the user's chain of that name, nil when there is none.
func (t *Table) User(name string) *Chain {
	for _, c := range t.chains {
		if c.hook < 0 && c.Name == name {
			return c
		}
	}
	return nil
}

// AddUser returns the user's chain of that name; it makes one when there is none.
// A name has 28 bytes at most.
func (t *Table) AddUser(name string) *Chain {
	if c := t.User(name); c != nil {
		return c
	}
	target := make([]byte, errorSize)
	binary.NativeEndian.PutUint16(target, errorSize)
	copy(target[2:], "ERROR")
	copy(target[targetHeader:targetHeader+28], name)
	c := &Chain{Name: name, hook: -1, Policy: Return, head: newRule(nil, target), policy: NewVerdict(Return)}
	t.chains = append(t.chains, c)
	return c
}

// Ports is what a rule asks of a TCP or UDP packet.
type Ports struct {
	Protocol            uint8        // unix.IPPROTO_TCP or …_UDP
	Source, Destination netip.Prefix // invalid for any
	SourcePort, Port    uint16       // 0 for any
	// Follows leaves out TCP packets that open a connection.
	Follows bool
}

// NewAccept returns a rule that accepts such packets.
func NewAccept(p Ports) *Rule {
	const matchSize, tcpData, udpData = 48, 12, 10 // struct xt_tcp, struct xt_udp, padded
	ports := func(one uint16) [2]uint16 {
		if one == 0 {
			return [2]uint16{0, 0xffff}
		}
		return [2]uint16{one, one}
	}
	match := make([]byte, matchSize)
	binary.NativeEndian.PutUint16(match, matchSize)
	data := match[targetHeader:]
	for i, port := range slices.Concat(pair(ports(p.SourcePort)), pair(ports(p.Port))) {
		binary.NativeEndian.PutUint16(data[2*i:], port)
	}
	if p.Protocol == protocolTCP {
		copy(match[2:], "tcp")
		if p.Follows {
			const interest, syn, invertFlags = 0x17, 0x02, 0x04
			data[9], data[10], data[tcpData-1] = interest, syn, invertFlags
		}
	} else {
		copy(match[2:], "udp")
		_ = data[:udpData]
	}
	r := newRule(match, verdictTarget(Accept))
	putNetwork(r.entry[0:], r.entry[8:], p.Source)
	putNetwork(r.entry[4:], r.entry[12:], p.Destination)
	binary.NativeEndian.PutUint16(r.entry[80:], uint16(p.Protocol))
	return r
}

const protocolTCP = 6

func pair(p [2]uint16) []uint16 { return p[:] }

func putNetwork(address, mask []byte, n netip.Prefix) {
	if !n.IsValid() {
		return
	}
	a := n.Masked().Addr().As4()
	copy(address[:4], a[:])
	if bits := n.Bits(); bits > 0 {
		binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-bits))
	}
}

// NewJump returns a rule that leads all packets to a user's chain.
func NewJump(to *Chain) *Rule {
	r := newRule(nil, verdictTarget(0))
	r.jump = to
	return r
}

// NewVerdict returns a rule for all packets.
func NewVerdict(verdict int32) *Rule { return newRule(nil, verdictTarget(verdict)) }

func verdictTarget(verdict int32) []byte {
	target := make([]byte, standardSize)
	binary.NativeEndian.PutUint16(target, standardSize)
	binary.NativeEndian.PutUint32(target[targetHeader:], uint32(verdict))
	return target
}

func newRule(matches, target []byte) *Rule {
	entry := slices.Concat(make([]byte, entrySize), matches, target)
	binary.NativeEndian.PutUint16(entry[88:], uint16(entrySize+len(matches)))
	binary.NativeEndian.PutUint16(entry[90:], uint16(len(entry)))
	return &Rule{entry: entry, old: -1}
}

// entries are all of them in the kernel's order.
func (t *Table) entries() (list []*Rule) {
	for _, c := range t.chains {
		if c.head != nil {
			list = append(list, c.head)
		}
		list = append(append(list, c.Rules...), c.policy)
	}
	return append(list, t.end)
}

// Replacement is a table as the kernel takes it.
type Replacement struct {
	// Request is a struct ipt_replace with its entries. CountersAt is where the
	// pointer to room for the counters of Old entries goes.
	Request    []byte
	CountersAt int
	Old        int

	name    string
	entries []*Rule
}

// Replace writes the table.
func (t *Table) Replace() Replacement {
	list := t.entries()
	offset, at := make(map[*Rule]uint32), uint32(0)
	for _, r := range list {
		offset[r] = at
		at += uint32(len(r.entry))
	}
	q := make([]byte, ReplaceSize, ReplaceSize+at)
	copy(q[:NameSize-1], t.Name)
	put := func(at int, v uint32) { binary.NativeEndian.PutUint32(q[at:], v) }
	put(32, t.hooks)
	put(36, uint32(len(list)))
	put(40, at)
	put(84, uint32(t.old))
	for _, c := range t.chains {
		if c.hook >= 0 {
			put(44+4*c.hook, offset[c.first()])
			put(64+4*c.hook, offset[c.policy])
		}
	}
	for _, r := range list {
		entry := slices.Clone(r.entry)
		if v, ok := standard(entry); ok && r.jump != nil {
			binary.NativeEndian.PutUint32(v, offset[r.jump.first()])
		} else if ok && r.falls {
			binary.NativeEndian.PutUint32(v, offset[r]+uint32(len(entry)))
		}
		q = append(q, entry...)
	}
	return Replacement{Request: q, CountersAt: 88, Old: t.old, name: t.Name, entries: list}
}

func (c *Chain) first() *Rule {
	if len(c.Rules) > 0 {
		return c.Rules[0]
	}
	return c.policy
}

// Counters returns the struct xt_counters_info that gives each old rule its
// counters back, which the kernel wrote to counters when it replaced the table.
func (r Replacement) Counters(counters []byte) ([]byte, error) {
	if len(counters) != r.Old*CounterSize {
		return nil, fmt.Errorf("%w: %d bytes of counters for %d rules", errTable, len(counters), r.Old)
	}
	q := make([]byte, CountersSize, CountersSize+len(r.entries)*CounterSize)
	copy(q[:NameSize-1], r.name)
	binary.NativeEndian.PutUint32(q[NameSize:], uint32(len(r.entries)))
	for _, e := range r.entries {
		if e.old < 0 || e.old >= r.Old {
			q = append(q, make([]byte, CounterSize)...)
			continue
		}
		q = append(q, counters[e.old*CounterSize:][:CounterSize]...)
	}
	return q, nil
}
