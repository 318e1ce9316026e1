// Package show boots a network of machines for a person who watches: a live
// line for each machine, then checks and a report.
//
// What it knows of a machine comes from the events of its programs, in the
// order they happened; it parses no log. It is not a test: tests use package
// harness and fail on the first thing that is wrong, while this one goes on and
// says what was.
//
// The invariant: Machine is a pure function of the records that it took, so
// what is shown can be tested without a machine.
package show

import (
	"fmt"
	"strings"
	"time"

	"viver.lan/internal/event"
	"viver.lan/qemu-tests/harness"
)

// Machine is what is known of one machine.
type Machine struct {
	Name     string
	Firmware harness.Firmware
	// Boots says from what it starts, for people: "CD", "network".
	Boots   string
	PowerOn time.Time
	// Kernel is when its kernel started, Login when one could log in; zero
	// before.
	Kernel, Login time.Time
	Stages        []Stage
	Node          event.Node
	Transfer      event.Transfer
	Independence  event.Independence
	// RootDisk is the device that holds the root file system.
	RootDisk string
	// Serving are the services of the boot host that run here.
	Serving map[string]bool
	// Stopped is why it does not go on; empty while it does.
	Stopped string
	// Task is what is asked of it after its boot; empty when nothing is.
	Task string
}

// Stage is one stage of a machine's boot.
type Stage struct {
	event.Stage
	Began time.Time
}

// Take adds what an event tells.
func (m *Machine) Take(rec harness.Record) {
	kernel := rec.Kernel()
	if m.Kernel.IsZero() || kernel.Before(m.Kernel) {
		m.Kernel = kernel
	}
	e, err := rec.Decode()
	if err != nil {
		return // a kind that is newer than this program
	}
	switch e := e.(type) {
	case event.Stage:
		if m.bootsAgain(e) {
			m.Stages, m.Login, m.Stopped, m.Kernel = nil, time.Time{}, "", kernel
		}
		m.takeStage(e, rec.At)
	case event.Node:
		m.Node = e
	case event.Transfer:
		m.Transfer = e
	case event.Independence:
		m.Independence = e
	case event.Attached:
		m.RootDisk = e.Device
	case event.Service:
		if m.Serving == nil {
			m.Serving = map[string]bool{}
		}
		m.Serving[e.Name] = e.State == event.Started || e.State == event.Retrying
	}
}

// bootsAgain tells whether a stage begins that has been gone through.
func (m *Machine) bootsAgain(s event.Stage) bool {
	for _, known := range m.Stages {
		if known.Name == s.Name && s.State == event.Started {
			return true
		}
	}
	return false
}

func (m *Machine) takeStage(s event.Stage, at time.Time) {
	if s.State == event.Stopped {
		m.Stopped = fmt.Sprintf("stopped at %s: %s", s.Name, s.Detail)
	}
	for i := range m.Stages {
		if m.Stages[i].Name == s.Name {
			m.Stages[i].Stage = s
			return
		}
	}
	m.Stages = append(m.Stages, Stage{Stage: s, Began: at})
}

// boothost are the services that a network node needs from the first node.
func boothost() []string { return []string{"dhcp", "tftp", "http"} }

// ServesBoot says whether machines can boot from this one.
func (m *Machine) ServesBoot() bool {
	for _, s := range boothost() {
		if !m.Serving[s] {
			return false
		}
	}
	return true
}

// Status is what the machine does now, in a few words, or why it does not go on.
func (m *Machine) Status() string {
	if m.Stopped != "" {
		return m.Stopped
	}
	return m.doing()
}

// doing is how far the machine has come.
func (m *Machine) doing() string {
	switch {
	case m.PowerOn.IsZero():
		return "waits for the first node"
	case !m.Login.IsZero():
		return "ready" + m.whoami() + m.task()
	case len(m.Stages) == 0 && m.Kernel.IsZero():
		return "firmware, boot program"
	case len(m.Stages) == 0:
		return "kernel"
	}
	last := m.Stages[len(m.Stages)-1]
	if last.Name == "handover" {
		return "the distribution starts" + m.whoami()
	}
	if running := m.running(); running != "" {
		return running
	}
	return last.Name + " " + string(last.State)
}

// running names the stages that have begun and not ended.
func (m *Machine) running() string {
	var names []string
	for _, s := range m.Stages {
		switch s.State {
		case event.Started:
			names = append(names, s.Name)
		case event.Retrying:
			names = append(names, s.Name+", again: "+s.Detail)
		}
	}
	return strings.Join(names, " + ")
}

func (m *Machine) task() string {
	if m.Task == "" {
		return ""
	}
	return "; " + m.Task
}

// busy says whether anybody waits for the machine.
func (m *Machine) busy() bool { return m.Stopped == "" && (m.Login.IsZero() || m.Task != "") }

func (m *Machine) whoami() string {
	if m.Node.Hostname == "" {
		return ""
	}
	return fmt.Sprintf(": %s, %s", m.Node.Hostname, m.Node.Address)
}

// bar has a character for each stage that is over: "=" done, "~" degraded.
func (m *Machine) bar() string {
	var b strings.Builder
	for _, s := range m.Stages {
		switch s.State {
		case event.Done:
			b.WriteByte('=')
		case event.Degraded:
			b.WriteByte('~')
		case event.Stopped:
			b.WriteByte('x')
		default:
			b.WriteByte('>')
		}
	}
	return b.String()
}

// Line is the machine's line on the screen.
func (m *Machine) Line(now time.Time) string {
	if m.PowerOn.IsZero() {
		return fmt.Sprintf("%-7s %-5s %8s  %-16s %s", m.Name, m.Firmware, "", "", m.Status())
	}
	until := now
	if !m.busy() && !m.Login.IsZero() {
		until = m.Login
	}
	return fmt.Sprintf("%-7s %-5s %6.1f s  %-16s %s", m.Name, m.Firmware, until.Sub(m.PowerOn).Seconds(), m.bar(), m.Status())
}
