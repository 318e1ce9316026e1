package roles

import (
	"fmt"
	"strconv"
	"strings"
)

// Count says how many nodes hold a role.
type Count struct {
	kind countKind
	n    int // of kind fixed: nodes; of kind share: per cent
}

type countKind byte

const (
	fixed countKind = iota
	first
	all
	others
	most
	share
)

// The words that stand for a count.
var countWords = [...]struct {
	word  string
	count Count
}{
	{"one", Count{fixed, 1}}, {"first", Count{kind: first}}, {"all", Count{kind: all}},
	{"others", Count{kind: others}}, {"most", Count{kind: most}},
}

// maxCount is more nodes than a network has.
const maxCount = 9999

// ParseCount reads what a rune wants of a role: one, first, all, others, most, a
// number, or a share of the nodes such as 50%.
func ParseCount(s string) (Count, error) {
	for _, w := range countWords {
		if s == w.word {
			return w.count, nil
		}
	}
	digits, percent := strings.CutSuffix(s, "%")
	n, err := strconv.Atoi(digits)
	switch {
	case err != nil || n < 1 || strconv.Itoa(n) != digits:
	case percent && n <= 100:
		return Count{share, n}, nil
	case !percent && n <= maxCount:
		return Count{fixed, n}, nil
	}
	return Count{}, fmt.Errorf("%.40q nodes: want one, first, all, others, most, a number up to %d, or a share such as 50%%", s, maxCount)
}

// String returns the text that ParseCount reads, "" of the zero Count.
func (c Count) String() string {
	for _, w := range countWords {
		if c == w.count {
			return w.word
		}
	}
	switch {
	case c == Count{}:
		return ""
	case c.kind == share:
		return strconv.Itoa(c.n) + "%"
	}
	return strconv.Itoa(c.n)
}

// of returns how many of so many nodes that may hold the role do.
func (c Count) of(nodes int) int {
	n := nodes
	switch c.kind {
	case first:
		n = 1
	case fixed:
		n = c.n
	case most:
		n = nodes/2 + 1
	case share:
		n = (nodes*c.n + 99) / 100
	}
	return min(n, nodes)
}

// MarshalText returns what String does.
func (c Count) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (c *Count) UnmarshalText(text []byte) (err error) {
	*c, err = ParseCount(string(text))
	return err
}
