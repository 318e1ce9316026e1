package boothost

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"viver.lan/internal/dhcp"
)

// metrics counts what the host does.
type metrics struct {
	requests  *prometheus.CounterVec
	bytes     *prometheus.CounterVec
	transfers *prometheus.CounterVec
}

// newMetrics registers the counters, or reuses those of an earlier host of the
// same process. With a nil registry they are not exported.
func newMetrics(reg *prometheus.Registry) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		if reg == nil {
			return c
		}
		var again prometheus.AlreadyRegisteredError
		if err := reg.Register(c); errors.As(err, &again) {
			if old, ok := again.ExistingCollector.(*prometheus.CounterVec); ok {
				return old
			}
		}
		return c
	}
	return &metrics{
		requests:  counter("viver_boothost_dhcp_requests_total", "DHCP requests heard, by kind of client and our answer.", "client", "answer"),
		bytes:     counter("viver_boothost_sent_bytes_total", "Bytes of files sent to booting machines.", "service"),
		transfers: counter("viver_boothost_transfers_total", "File transfers ended.", "service", "result"),
	}
}

func (m *metrics) request(d dhcp.Decision) {
	answer := "none"
	if d.Reply != nil {
		answer = d.Reply.MessageType().String()
	}
	client := d.Client.Kind
	if client == "" {
		client = dhcp.OtherClient
	}
	m.requests.WithLabelValues(string(client), answer).Inc()
}

func (m *metrics) sent(service string, n int64) { m.bytes.WithLabelValues(service).Add(float64(n)) }

func (m *metrics) transfer(service string, err error) {
	result := "done"
	if err != nil {
		result = "broken"
	}
	m.transfers.WithLabelValues(service, result).Inc()
}
