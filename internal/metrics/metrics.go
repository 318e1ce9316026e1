// Package metrics counts what happens in a program, and shows the counts to Prometheus in
// its text format (version 0.0.4).
//
// It has counters and nothing else: docs/architecture.md says why it is not Prometheus's
// own library. A counter only grows, as long as its program runs. Each combination of the
// values of its labels is remembered, so these come from short lists in the code and never
// from strangers.
package metrics

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Set is the counters of a program; as an http.Handler it shows them. The zero value has
// none.
type Set struct {
	mu       sync.Mutex // guards counters
	counters map[string]*Counter
}

// Counter has one count for each combination of the values of its labels.
type Counter struct {
	name, help string
	labels     []string

	mu     sync.Mutex // guards counts
	counts map[string]*count
}

// count is the one for one combination.
type count struct {
	added atomic.Uint64
	ask   func() uint64 // where somebody else counts, else nil
}

func (c *count) value() uint64 {
	if c.ask != nil {
		return c.ask()
	}
	return c.added.Load()
}

// Counter returns the counter of that name, a new one if there is none. The name and those
// of the labels are made of letters, digits and _; help is one line that says what is
// counted. A nil set returns a new one each time, which nobody sees.
func (s *Set) Counter(name, help string, labels ...string) *Counter {
	c := &Counter{name: name, help: help, labels: labels, counts: make(map[string]*count)}
	if s == nil {
		return c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.counters[name]; ok {
		return old
	}
	if s.counters == nil {
		s.counters = make(map[string]*Counter)
	}
	s.counters[name] = c
	return c
}

// Add adds n to the count with these values of the labels, in their order.
func (c *Counter) Add(n uint64, values ...string) { c.count(nil, values).added.Add(n) }

// Ask has f asked for the count with these values when it is shown. Several goroutines may
// call f at once.
func (c *Counter) Ask(f func() uint64, values ...string) { c.count(f, values) }

// count returns the one with these values, a new one if there is none.
func (c *Counter) count(ask func() uint64, values []string) *count {
	pairs := make([]string, len(c.labels))
	for i, label := range c.labels {
		pairs[i] = fmt.Sprintf(`%s="%s"`, label, escape(values[i]))
	}
	key := strings.Join(pairs, ",")
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts[key] == nil {
		c.counts[key] = &count{ask: ask}
	}
	return c.counts[key]
}

// escape writes a label's value as it stands between quotes.
func escape(value string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(value)
}

// ServeHTTP shows all counters, sorted by name.
func (s *Set) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	counters := slices.SortedFunc(maps.Values(s.counters), func(a, b *Counter) int { return strings.Compare(a.name, b.name) })
	s.mu.Unlock()
	var text bytes.Buffer
	for _, c := range counters {
		c.write(&text)
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(text.Bytes()) // a client that has gone is no fault
}

func (c *Counter) write(w *bytes.Buffer) {
	c.mu.Lock()
	counts := maps.Clone(c.counts)
	c.mu.Unlock()
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %[1]s counter\n", c.name, c.help)
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(w, "%s{%s} %d\n", c.name, key, counts[key].value())
	}
}
