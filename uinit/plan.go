package main

import (
	"fmt"
	"slices"
	"strings"
)

// plan is the order of a boot as the needs of its stages make it. It is pure: it is
// told which stages ended, and says which may begin.
type plan struct {
	stages []stage
	begun  []bool
	ended  []string // also the degraded: what needs them goes on without
}

func newPlan(stages []stage) *plan {
	return &plan{stages: stages, begun: make([]bool, len(stages))}
}

// next returns the stages that may begin now, by their place in the list, and counts
// them as begun. first says whether this is the first node; it is asked when the
// stages that know have ended.
func (p *plan) next(first func() bool) (ready []int) {
	for i, s := range p.stages {
		if p.begun[i] || !p.has(s.needs) && (s.onFirst == nil || !p.has(s.onFirst) || !first()) {
			continue
		}
		p.begun[i] = true
		ready = append(ready, i)
	}
	return ready
}

// has reports whether all of these stages have ended.
func (p *plan) has(names []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return !slices.Contains(p.ended, name) })
}

// end counts a stage as ended.
func (p *plan) end(i int) { p.ended = append(p.ended, p.stages[i].name) }

// unreached is the error of a list with stages that can never begin.
func (p *plan) unreached() error {
	var names []string
	for i, s := range p.stages {
		if !p.begun[i] {
			names = append(names, s.name)
		}
	}
	if names == nil {
		return nil
	}
	return fmt.Errorf("%w: nothing ends that these stages need: %s", errStopped, strings.Join(names, ", "))
}
