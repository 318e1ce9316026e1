package testrun

import (
	"regexp"
	"strings"
)

// place is how testing begins a line of a test's own. A test that ran in namespaces
// has its lines further in.
var place = regexp.MustCompile(`^( *)[A-Za-z0-9_]+\.go:[0-9]+: `)

// placed are the lines that begin with a place in the source, each with up to 8
// that continue it.
func placed(lines []string) []string {
	var found []string
	at, more := 0, 0
	for _, line := range lines {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if place.MatchString(line) {
			found, at, more = append(found, line), indent, 8
			continue
		}
		if more--; more >= 0 && (indent > at || strings.TrimSpace(line) == "") {
			found = append(found, line)
			continue
		}
		more = 0
	}
	return found
}

// said leaves out what testing prints about a test's begin and end.
func said(lines []string) []string {
	var own []string
	for _, line := range lines {
		text := strings.TrimLeft(line, " ")
		if !strings.HasPrefix(text, "=== ") && !strings.HasPrefix(text, "--- ") {
			own = append(own, line)
		}
	}
	return own
}

func quiet(lines []string) []string {
	var some []string
	for _, line := range lines {
		if !strings.Contains(line, "level=DEBUG") {
			some = append(some, line)
		}
	}
	return some
}
