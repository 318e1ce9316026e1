package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"viver.lan/internal/bench/figures"
)

// kind says what a row measures.
type kind int

const (
	spread      kind = iota // one file to n nodes over throttled links
	unthrottled             // one node, links open: what the CPU allows
	demand                  // small reads, nothing held but at the origin
)

// spec is a row to be measured.
type spec struct {
	system string
	kind   kind
	n      int // nodes; readers for demand
	mbit   int // 0: open
	size   int64
	start  string
	runs   int
	window time.Duration // 0: until the whole file is there
}

// name is what -only is compared with.
func (s spec) name() string {
	switch s.kind {
	case unthrottled:
		return "unthrottled:" + s.system
	case demand:
		return fmt.Sprintf("demand:%s:%d:%d", s.system, s.n, s.mbit)
	}
	return fmt.Sprintf("%s:%d:%s", s.system, s.n, s.start)
}

// ideal is the time that one run takes on a perfect network.
func (s spec) ideal() time.Duration {
	if s.window > 0 {
		return s.window
	}
	if s.kind != spread {
		return 5 * time.Second
	}
	file := s.fileTime()
	if s.start == figures.Staggered {
		file *= 2
	}
	return file
}

// fileTime is how long the file takes over a link at its raw rate.
func (s spec) fileTime() time.Duration {
	return time.Duration(float64(s.size) * 8 / (float64(s.mbit) * 1e6) * float64(time.Second))
}

// expected is about how long a row will take; strangers use less of the link.
func (s spec) expected() time.Duration {
	one := s.ideal() + 3*time.Second
	switch s.system {
	case "libtorrent", "anacrolix":
		one += s.ideal() / 2
	}
	return time.Duration(s.runs) * one
}

// Sizes and rates. Links are slower where there are more nodes, so that
// packets and not the CPU are the limit of a small machine.
const (
	fullSize  = 540_000_000
	largeSize = 320_000_000 // for 32 nodes
	window    = 30 * time.Second
	glance    = 10 * time.Second // for a speed of NBD that no row was asked for
)

func rateFor(n int) int {
	switch {
	case n <= 8:
		return 100
	case n <= 16:
		return 50
	}
	return 20
}

// plan lists the rows of a run, in order; what others are compared with comes
// first.
func plan(quick bool) []spec {
	var rows []spec
	add := func(system string, n, runs int, start string) {
		s := spec{system: system, n: n, mbit: rateFor(n), size: fullSize, start: start, runs: runs}
		if n > 16 {
			s.size = largeSize
		}
		if n > 1 && (system == "nbd" || system == "http") {
			s.window = window
		}
		rows = append(rows, s)
	}
	nbd1 := func(n int) { // on the links that n nodes get
		add("nbd", n, 1, figures.Simultaneous)
		last := &rows[len(rows)-1]
		last.n, last.window = 1, 0
	}
	nbd1(1)
	nbd1(16)
	if quick {
		for _, n := range []int{1, 4, 16} {
			add("vfield", n, 1, figures.Simultaneous)
		}
		return rows
	}
	nbd1(32)
	for _, n := range []int{1, 2, 4, 8, 16, 32} {
		add("vfield", n, 3, figures.Simultaneous)
	}
	for _, start := range []string{figures.Staggered, figures.Offsets, figures.Deaths} {
		add("vfield", 16, 1, start)
	}
	for _, n := range []int{2, 4, 8, 16, 32} {
		add("nbd", n, 1, figures.Simultaneous)
	}
	for _, n := range []int{1, 2, 4, 8, 16, 32} {
		add("http", n, 1, figures.Simultaneous)
	}
	for _, system := range []string{"libtorrent", "anacrolix"} {
		for _, n := range []int{1, 4, 16} {
			add(system, n, 1, figures.Simultaneous)
		}
	}
	for _, system := range []string{"nbd", "vfield", "vfield-receive", "libtorrent"} {
		rows = append(rows, spec{system: system, kind: unthrottled, n: 1, size: fullSize, start: figures.Simultaneous, runs: 3})
	}
	for _, mbit := range []int{100, 0} {
		for _, readers := range []int{1, 16} {
			for _, system := range []string{"nbd", "vfield"} {
				rows = append(rows, spec{system: system, kind: demand, n: readers, mbit: mbit, size: fullSize, start: figures.Simultaneous, runs: 1})
			}
		}
	}
	return rows
}

// choose keeps the rows that are asked for: a pattern is a name or its
// beginning up to a colon ("vfield:16", "demand").
func choose(rows []spec, patterns []string) ([]spec, error) {
	if len(patterns) == 0 {
		return rows, nil
	}
	matches := func(s spec, pattern string) bool {
		return strings.HasPrefix(s.name()+":", pattern+":")
	}
	for _, p := range patterns {
		if !slices.ContainsFunc(rows, func(s spec) bool { return matches(s, p) }) {
			var names []string
			for _, s := range rows {
				names = append(names, s.name())
			}
			return nil, fmt.Errorf("no row %q; there are: %s", p, strings.Join(slices.Compact(names), " "))
		}
	}
	return slices.DeleteFunc(rows, func(s spec) bool {
		return !slices.ContainsFunc(patterns, func(p string) bool { return matches(s, p) })
	}), nil
}
