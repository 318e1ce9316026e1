package runes

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/netbed/netbedtest"
)

// changed runs a machine's hook for members that came and went, as @vrune does.
func (m *labMachine) changed(t *testing.T, b Bundle) {
	t.Helper()
	hook, ok := b.Hook(MomentMembers, m.facts, "")
	if !ok {
		t.Fatal("the rune has no such hook")
	}
	m.write(t, "/run/hook", string(hook.Program), 0o755)
	if _, err := m.run(t, slices.Concat([]string{"env", "-i"}, hook.Env, hook.Interpreter, []string{"/run/hook"})...); err != nil {
		t.Errorf("%s: %v", m.name, err)
	}
}

func TestNetnsWatch(t *testing.T) {
	netbedtest.Need(t, "awk")
	if !inNetwork(t) {
		return
	}
	l := openNetwork(t, "watch", nil, 6, func(root string) {
		must(t, os.MkdirAll(filepath.Join(root, "etc/viver/watch.d"), 0o755))
		for name, script := range map[string]string{"note": `echo "$@" >>/srv/told`, "fails": "exit 3", "notes.txt": "no program"} {
			mode := os.FileMode(0o755)
			if name == "notes.txt" {
				mode = 0o644
			}
			must(t, os.WriteFile(filepath.Join(root, "etc/viver/watch.d", name), []byte("#!/bin/sh\n"+script+"\n"), mode))
		}
	})
	step := func() {
		t.Helper()
		l.converge(t)
		for _, m := range l.machines {
			if m.up {
				m.changed(t, l.bundle)
			}
		}
	}
	// said are the events in the logs of some machines, told those that programs heard of.
	expect := func(what string, said, told map[int]string) {
		t.Helper()
		for i, m := range l.machines {
			var events []string
			for line := range strings.Lines(m.read("/run/viver/watch.log")) {
				_, event, _ := strings.Cut(strings.TrimSpace(line), " ")
				events = append(events, event)
			}
			if got := strings.Join(events, ", "); got != said[i] {
				t.Errorf("%s: %s says %q, want %q", what, m.name, got, said[i])
			}
			told := strings.TrimSpace(told[i])
			if got := strings.TrimSpace(m.read("/srv/told")); got != told {
				t.Errorf("%s: the programs of %s are told %q, want %q", what, m.name, got, told)
			}
			_ = os.Remove(filepath.Join(m.root, "run/viver/watch.log"))
			_ = os.Remove(filepath.Join(m.root, "srv/told"))
		}
	}
	l.machines[5].up = false
	l.machines[1].roles, l.machines[2].roles = []string{"watcher"}, []string{"watcher"}
	step()
	expect("nobody came or went", nil, nil)

	l.machines[4].die(t)
	step()
	const gone = "down n5 10.9.0.5"
	expect("a machine died", map[int]string{1: gone, 2: gone}, map[int]string{1: gone})

	// The one that calls programs dies, and its role goes to a machine before the other.
	l.machines[1].die(t)
	l.machines[5].up = true
	l.machines[0].roles = []string{"watcher"}
	step()
	both := "down n2 10.9.0.2, up n6 10.9.0.6"
	told := l.machines[2].read("/srv/told")
	if countLines(told, "down n2") != 1 || countLines(told, "up n6") != 1 || countLines(told, "n") != 2 {
		t.Errorf("told: %q", told)
	}
	must(t, os.Remove(filepath.Join(l.machines[2].root, "srv/told")))
	expect("a watcher died", map[int]string{0: both, 2: both}, nil)

	// Both watchers die at once, and nobody has their role yet.
	l.machines[0].die(t)
	l.machines[2].die(t)
	step()
	both = "down n1 10.9.0.1, down n3 10.9.0.3"
	if told := l.machines[3].read("/srv/told"); countLines(told, "down n") != 2 {
		t.Errorf("told: %q", told)
	}
	_ = os.Remove(filepath.Join(l.machines[3].root, "srv/told"))
	expect("both watchers died", map[int]string{3: both}, nil)

	// One machine is switched off. Another dies, which was switched off yesterday.
	forget := func() {
		_ = os.Remove(filepath.Join(l.machines[3].root, "run/viver/watch.log"))
		_ = os.Remove(filepath.Join(l.machines[3].root, "srv/told"))
	}
	for _, i := range []int{0, 4} {
		must(t, l.machines[i].SetLink(true))
		l.machines[i].up = true
	}
	l.machines[3].roles = []string{"watcher"}
	step()
	forget()
	l.machines[0].die(t)
	l.machines[4].die(t)
	l.left = []string{idOf("n5"), "id-of-yesterday"}
	step()
	if told := l.machines[3].read("/srv/told"); countLines(told, "down n1 10.9.0.1") != 1 || countLines(told, "left n5 10.9.0.5") != 1 || countLines(told, "") != 2 {
		t.Errorf("told: %q", told)
	}
	forget()

	// A log is bounded.
	var full strings.Builder
	for i := range 10000 {
		fmt.Fprintf(&full, "2026-11-30T12:00:00+00:00 up number%05d 10.9.9.9\n", i)
	}
	l.machines[3].write(t, "/run/viver/watch.log", full.String(), 0o644)
	l.machines[5].die(t)
	step()
	if log := l.machines[3].read("/run/viver/watch.log"); countLines(log, "") != 1000 || !strings.HasSuffix(log, " down n6 10.9.0.6\n") {
		t.Errorf("the log has %d lines, and ends with %q", countLines(log, ""), log[max(0, len(log)-100):])
	}
}
