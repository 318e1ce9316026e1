// Package bytesize reads the sizes that people give to commands, such as 8G, and writes
// those that they are shown, such as 1.5 GiB.
//
// Numbers for programs are not its subject. The invariant: a Size that Set has taken is more
// than nothing, and its bytes fit into an int64.
package bytesize

import (
	"fmt"
	"strconv"
	"strings"
)

// Size is a number of bytes.
type Size int64

// Set reads a number with an optional K, M or G (of 1024).
func (size *Size) Set(text string) error {
	number, unit := strings.TrimRight(text, "KMG"), int64(1)
	switch text[len(number):] {
	case "":
	case "K":
		unit = 1 << 10
	case "M":
		unit = 1 << 20
	case "G":
		unit = 1 << 30
	default:
		number = ""
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > 1<<62/unit {
		return fmt.Errorf("%q is no size, want e.g. 512M or 2G", text)
	}
	*size = Size(n * unit)
	return nil
}

// Words tells a person how large something is.
func Words(n int64) string {
	for _, unit := range []struct {
		bytes int64
		name  string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}} {
		switch {
		case n >= 10*unit.bytes:
			return fmt.Sprintf("%d %s", n/unit.bytes, unit.name)
		case n >= unit.bytes:
			return fmt.Sprintf("%.1f %s", float64(n)/float64(unit.bytes), unit.name)
		}
	}
	if n >= 10<<10 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

// MiB is for sizes that are compared with each other: all in one unit.
func MiB(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
