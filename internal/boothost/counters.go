package boothost

import (
	"viver.lan/internal/dhcp"
	"viver.lan/internal/metrics"
)

// counters count what the host does.
type counters struct {
	requests  *metrics.Counter
	bytes     *metrics.Counter
	transfers *metrics.Counter
}

// newCounters takes them from a set, where those of an earlier host of the same process
// may be already.
func newCounters(set *metrics.Set) *counters {
	return &counters{
		requests:  set.Counter("viver_boothost_dhcp_requests_total", "DHCP requests heard, by kind of client and our answer.", "answer", "client"),
		bytes:     set.Counter("viver_boothost_sent_bytes_total", "Bytes of files sent to booting machines.", "service"),
		transfers: set.Counter("viver_boothost_transfers_total", "File transfers ended.", "result", "service"),
	}
}

func (c *counters) request(d dhcp.Decision) {
	answer := "none"
	if d.Reply != nil {
		answer = d.Reply.MessageType().String()
	}
	client := d.Client.Kind
	if client == "" {
		client = dhcp.OtherClient
	}
	c.requests.Add(1, answer, string(client))
}

func (c *counters) sent(service string, n int64) { c.bytes.Add(uint64(max(n, 0)), service) }

func (c *counters) transfer(service string, err error) {
	result := "done"
	if err != nil {
		result = "broken"
	}
	c.transfers.Add(1, result, service)
}
