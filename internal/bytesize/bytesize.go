// Package bytesize reads the sizes that people give to commands, such as 8G.
//
// It is not for what is shown to them. The invariant: a Size that Set has taken is more
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
