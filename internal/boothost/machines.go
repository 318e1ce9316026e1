package boothost

import (
	"container/list"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
)

// maxMachines bounds what is remembered for the status page; the machine that
// has been silent longest is forgotten first.
const maxMachines = 4096

// Machine is what the host has seen of one client.
type Machine struct {
	MAC      ether.MAC     `json:"mac"`
	Address  netip.Addr    `json:"address,omitzero"`
	Hostname string        `json:"hostname,omitempty"`
	Client   dhcp.Kind     `json:"client"` // what asked last
	Platform dhcp.Platform `json:"platform,omitempty"`
	// Decision describes our last answer.
	Decision string `json:"decision"`
	// File is what it fetched last, and Bytes all that it fetched.
	File  string    `json:"file,omitempty"`
	Bytes int64     `json:"bytes"`
	Seen  time.Time `json:"seen"`
}

// machines remembers clients, the most recent first.
type machines struct {
	now func() time.Time

	mu     sync.Mutex
	order  *list.List // of *Machine, most recently seen in front
	byMAC  map[ether.MAC]*list.Element
	byAddr map[netip.Addr]*list.Element
}

func newMachines(now func() time.Time) *machines {
	return &machines{now: now, order: list.New(), byMAC: make(map[ether.MAC]*list.Element), byAddr: make(map[netip.Addr]*list.Element)}
}

// noteRequest notes a request. It reports whether the machine is new, or runs
// another program than at its last request.
func (t *machines) noteRequest(req *dhcpv4.DHCPv4, d dhcp.Decision) (isNew bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, known := t.byMAC[d.Client.MAC]
	if !known {
		if t.order.Len() >= maxMachines {
			t.forget(t.order.Back())
		}
		e = t.order.PushFront(&Machine{MAC: d.Client.MAC})
		t.byMAC[d.Client.MAC] = e
	}
	t.order.MoveToFront(e)
	m := e.Value.(*Machine)
	isNew = !known || m.Client != d.Client.Kind
	m.Client, m.Platform, m.Decision, m.Seen = d.Client.Kind, d.Client.Platform, d.Reason, t.now()
	if addr, ok := addressOf(req, d); ok {
		if t.byAddr[m.Address] == e {
			delete(t.byAddr, m.Address)
		}
		m.Address = addr
		t.byAddr[addr] = e
	}
	if d.Reply != nil && d.Reply.HostName() != "" {
		m.Hostname = d.Reply.HostName()
	}
	return isNew
}

// addressOf returns the machine's address: the one we gave, or the one that it
// takes from another server.
func addressOf(req *dhcpv4.DHCPv4, d dhcp.Decision) (netip.Addr, bool) {
	var addr netip.Addr
	switch {
	case d.Reply != nil:
		addr, _ = netip.AddrFromSlice(d.Reply.YourIPAddr.To4())
	case req.MessageType() == dhcpv4.MessageTypeRequest:
		addr, _ = netip.AddrFromSlice(req.RequestedIPAddress().To4())
	}
	return addr, addr.IsValid() && !addr.IsUnspecified()
}

// noteTransfer notes a transfer to a machine, if we gave it its address.
func (t *machines) noteTransfer(addr netip.Addr, file string, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.byAddr[addr]
	if !ok {
		return
	}
	t.order.MoveToFront(e)
	m := e.Value.(*Machine)
	m.File, m.Seen = file, t.now()
	m.Bytes += n
}

func (t *machines) forget(e *list.Element) {
	m := t.order.Remove(e).(*Machine)
	delete(t.byMAC, m.MAC)
	if t.byAddr[m.Address] == e {
		delete(t.byAddr, m.Address)
	}
}

// list returns the machines by MAC.
func (t *machines) list() []Machine {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Machine, 0, t.order.Len())
	for e := t.order.Front(); e != nil; e = e.Next() {
		all = append(all, *e.Value.(*Machine))
	}
	slices.SortFunc(all, func(a, b Machine) int { return slices.Compare(a.MAC[:], b.MAC[:]) })
	return all
}
