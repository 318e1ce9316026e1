package keyfile

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"viver.lan/internal/durable"
)

// maxStart bounds what a sequence starts with, so that there is room for more.
const maxStart = 1 << 40

// readStart reads what NextStart kept in path; 0 when there is nothing of use.
func readStart(path string) uint64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n >= maxStart {
		return 0
	}
	return n
}

// WriteStart keeps a start in path.
func WriteStart(path string, start uint64) error {
	return durable.WriteFile(path, []byte(strconv.FormatUint(start, 10)+"\n"), 0o600)
}

// NextStart returns a number greater than that of all earlier starts that are
// kept in path, and keeps it. It is the time in seconds since 1970 unless the
// clock was set back: then others would take what this machine says now for
// older than what it said before.
func NextStart(path string, clock uint64) (uint64, error) {
	start := max(min(clock, maxStart-1), readStart(path)+1)
	if err := WriteStart(path, start); err != nil {
		return start, fmt.Errorf("keep the number of this start: %w", err)
	}
	return start, nil
}
