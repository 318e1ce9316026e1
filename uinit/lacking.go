package main

import (
	"slices"
	"strings"

	"viver.lan/internal/hardware"
)

// lacking says which network cards and disk controllers of this machine do not run, and
// why: a sentence each, with the device's ID, its maker, and the module or the package that
// it needs.
func (n *node) lacking() []string {
	if n.modules == nil {
		return nil // the stage before has said what is wrong
	}
	log, _ := hardware.KernelLog() // without it no firmware is named
	return lackingOf(hardware.Survey(n.host.Path("/"), n.modules, log))
}

// lackingOf turns what was found into sentences. Other devices are the distribution's.
func lackingOf(devices []hardware.Device) (sentences []string) {
	for _, d := range devices {
		if slices.Contains([]string{hardware.KindNetwork, hardware.KindStorage, hardware.KindUSB}, d.Kind) {
			for _, text := range d.Missing {
				sentences = append(sentences, d.Kind+" "+d.String()+": "+text)
			}
		}
	}
	return sentences
}

// withLacking adds to an error what this machine lacks for its network.
func (n *node) withLacking(err error) error {
	lacking := n.lacking()
	if err == nil || len(lacking) == 0 {
		return err
	}
	return lackingError{err, lacking}
}

// lackingError is an error of the network on a machine that lacks something.
type lackingError struct {
	error
	lacking []string
}

func (e lackingError) Error() string { return e.error.Error() + "; " + strings.Join(e.lacking, "; ") }

func (e lackingError) Unwrap() error { return e.error }
