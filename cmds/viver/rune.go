package main

import "viver.lan/internal/control"

// runeSentence is what became of a rune, for people.
func runeSentence(r control.RuneOutcome) string {
	return r.Rune + " is " + r.Outcome + ": " + r.Reason
}
