package main

import (
	"fmt"
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
		if !d.ForBoot() {
			continue
		}
		for _, text := range d.Missing {
			sentences = append(sentences, d.Kind+" "+d.String()+": "+text)
		}
	}
	return sentences
}

// withLacking adds to an error of the network what the machine lacks.
func withLacking(err error, lacking []string) error {
	if len(lacking) == 0 {
		return err
	}
	return fmt.Errorf("%w; %s", err, strings.Join(lacking, "; "))
}
