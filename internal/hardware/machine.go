package hardware

import "strings"

// ParseMachine reads what testdata/collect.sh writes of a machine: the modalias of each
// device on a line, perhaps with a comment behind "#". Lines that are none are left out.
func ParseMachine(text string) (modaliases []string) {
	for line := range strings.Lines(text) {
		modalias, _, _ := strings.Cut(line, "#")
		if modalias = strings.TrimSpace(modalias); strings.Contains(modalias, ":") {
			modaliases = append(modaliases, modalias)
		}
	}
	return modaliases
}
