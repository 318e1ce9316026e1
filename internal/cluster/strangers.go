package cluster

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Stranger is somebody whose facts were refused.
type Stranger struct {
	Addr   netip.Addr // that it says is its own
	Name   string     // that it gives itself
	Reason string
	Last   time.Time // when it was last refused
}

// maxStrangers bounds how many are remembered, one for each address.
const maxStrangers = 64

// strangers are those seen lately.
type strangers map[netip.Addr]Stranger

// add remembers a stranger, in the place of the one that was seen longest ago
// when there are too many.
func (t strangers) add(s Stranger) {
	if _, known := t[s.Addr]; !known && len(t) >= maxStrangers {
		oldest := slices.MinFunc(slices.Collect(maps.Values(t)), func(a, b Stranger) int { return a.Last.Compare(b.Last) })
		delete(t, oldest.Addr)
	}
	t[s.Addr] = s
}

// readable is the beginning of what somebody calls itself.
func readable(name string) string {
	if name == "" || len(name) > 64 || !printable(name) {
		return "unreadable"
	}
	return name
}

// Strangers returns those whose facts were refused in the last hour, ordered by
// address.
func (c *Cluster) Strangers() []Stranger {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.strangers, func(_ netip.Addr, s Stranger) bool { return time.Since(s.Last) > time.Hour })
	return slices.SortedFunc(maps.Values(c.strangers), func(a, b Stranger) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Name, b.Name))
	})
}
