package main

import (
	"slices"
	"strings"
	"testing"
)

// order shows what begins when: a line for what may run side by side, when all
// stages of the line before have ended.
func order(stages []stage, first bool) string {
	var out strings.Builder
	p := newPlan(stages)
	for {
		ready := p.next(func() bool { return first })
		if len(ready) == 0 {
			return out.String()
		}
		var names []string
		for _, i := range ready {
			names = append(names, stages[i].name)
			p.end(i)
		}
		out.WriteString(strings.Join(names, " | ") + "\n")
	}
}

// The boot of a machine that a boot host started, and of the one with the medium.
func TestOrderOfTheBoot(t *testing.T) {
	for name, want := range map[string]string{
		"node": `pseudofs
hardware
daemons | modules | medium
network
boothost
settings | image | bundles
drivers
disks
vfield
attach
agent | root
runes
handover
`,
		"first node": `pseudofs
hardware
daemons | modules | medium
network | boothost
settings | image | bundles
drivers
disks
vfield
attach
agent | root
runes
handover
`} {
		if got := order(newNode().stages(), name == "first node"); got != want {
			t.Errorf("the order on a %s is\n%swant\n%s", name, got, want)
		}
	}
}

// A list that cannot deadlock: what a stage needs stands above it, and the last one
// needs them all.
func TestStagesNeedWhatStandsAbove(t *testing.T) {
	stages := newNode().stages()
	for i, s := range stages {
		for _, needs := range [][]string{s.needs, s.onFirst} {
			for _, name := range needs {
				if !slices.ContainsFunc(stages[:i], func(above stage) bool { return above.name == name }) {
					t.Errorf("%s needs %s, which does not stand above it", s.name, name)
				}
			}
		}
		if (i > 0) != (len(s.needs) > 0) {
			t.Errorf("%s needs %d stages; the first one alone needs none", s.name, len(s.needs))
		}
		if s.onFirst != nil && !before(stages, true)[s.name]["medium"] {
			t.Errorf("what %s needs depends on the stage medium, so it has to be among it", s.name)
		}
	}
	for _, first := range []bool{false, true} {
		last := stages[len(stages)-1].name
		if all := before(stages, first)[last]; len(all) != len(stages)-1 {
			t.Errorf("%s begins when %d of %d other stages have ended, first node %v", last, len(all), len(stages)-1, first)
		}
	}
}

// before returns, for each stage, those that have ended when it begins.
func before(stages []stage, first bool) map[string]map[string]bool {
	all := make(map[string]map[string]bool)
	for _, s := range stages {
		needs := s.needs
		if first && s.onFirst != nil {
			needs = s.onFirst
		}
		all[s.name] = make(map[string]bool)
		for _, name := range needs {
			all[s.name][name] = true
			for above := range all[name] {
				all[s.name][above] = true
			}
		}
	}
	return all
}

func TestPlanSaysWhatIsNeverReached(t *testing.T) {
	p := newPlan([]stage{{name: "a"}, {name: "b", needs: []string{"a", "x"}}, {name: "c", needs: []string{"b"}}})
	if got := p.next(nil); !slices.Equal(got, []int{0}) {
		t.Fatalf("next = %v", got)
	}
	p.end(0)
	if got := p.next(nil); got != nil {
		t.Errorf("next = %v, but nothing has ended that b needs", got)
	}
	if err := p.unreached(); err == nil || !strings.Contains(err.Error(), "b, c") {
		t.Errorf("unreached = %v", err)
	}
}
